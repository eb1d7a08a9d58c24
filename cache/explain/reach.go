package explain

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// ReachQuery is the first packet of a connection between two pods.
type ReachQuery struct {
	From, To cache.Key
	Network  cache.Key // the zero value: all networks that both pods are on
	Protocol uint8
	Port     uint16 // destination port; of TCP, UDP and SCTP
	ICMPType uint8  // of ICMP and ICMPv6
}

// NoPath is the verdict on two pods that share no network with addresses of a family.
const NoPath Verdict = "no shared network"

// Reach says whether a pod reaches another pod. Its JSON form is the output of explain --from POD --to POD --output json.
type Reach struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Packet string `json:"packet"`
	// Verdict is Allowed if any path is, since the sender may choose the address.
	Verdict Verdict `json:"verdict"`
	Reason  string  `json:"reason,omitempty"` // why there is no path
	Paths   []Path  `json:"paths"`
}

// Path is a connection from an address of a pod to an address of another pod on the same network. Both ends must allow it.
type Path struct {
	Network       string               `json:"network"`
	FromInterface string               `json:"fromInterface"`
	FromAddress   string               `json:"fromAddress"`
	ToInterface   string               `json:"toInterface"`
	ToAddress     string               `json:"toAddress"`
	Verdict       Verdict              `json:"verdict"`
	Egress        InterfaceExplanation `json:"egress"`  // the sender
	Ingress       InterfaceExplanation `json:"ingress"` // the receiver
}

// Reaches returns whether a pod reaches another pod, by the Egress policies of the sender and the Ingress policies of the
// receiver. Both pods must be local to the cache. The errors are those of Explain.
func Reaches(c *cache.Cache, q ReachQuery) (Reach, error) {
	out := Reach{
		From: q.From.String(), To: q.To.String(), Verdict: NoPath, Paths: []Path{},
		Packet: Query{Protocol: q.Protocol, Port: q.Port, ICMPType: q.ICMPType}.packet(),
	}
	from, err := viewOf(c, q.From)
	if err != nil {
		return out, err
	}
	to, err := viewOf(c, q.To)
	if err != nil {
		return out, err
	}
	for _, s := range sharedPaths(from, to, q.Network) {
		if !q.fits(s.from) {
			continue
		}
		p, err := q.judge(c, s)
		if err != nil {
			return out, err
		}
		out.Paths = append(out.Paths, p)
		out.Verdict = better(out.Verdict, p.Verdict)
	}
	if len(out.Paths) == 0 {
		out.Reason = fmt.Sprintf("%s is on %s; %s is on %s", q.From, listOr(networksOf(from), "no network"),
			q.To, listOr(networksOf(to), "no network"))
	}
	return out, nil
}

// fits reports whether packets of the protocol can have the address: ICMP is for IPv4, and ICMPv6 for IPv6.
func (q ReachQuery) fits(a netip.Addr) bool {
	return q.Protocol != protoICMP && q.Protocol != protoICMPv6 || a.Is4() == (q.Protocol == protoICMP)
}

// judge explains both ends of a path.
func (q ReachQuery) judge(c *cache.Cache, s sharedPath) (Path, error) {
	p := Path{
		Network: s.network.String(), FromInterface: s.fromInterface, FromAddress: s.from.String(),
		ToInterface: s.toInterface, ToAddress: s.to.String(),
	}
	packet := Query{Protocol: q.Protocol, Port: q.Port, ICMPType: q.ICMPType}
	for _, end := range []struct {
		pod       cache.Key
		iface     string
		own, peer netip.Addr
		direction engine.Direction
		answer    *InterfaceExplanation
	}{
		{q.From, s.fromInterface, s.from, s.to, engine.Egress, &p.Egress},
		{q.To, s.toInterface, s.to, s.from, engine.Ingress, &p.Ingress},
	} {
		ask := packet
		ask.Pod, ask.Interface, ask.Local, ask.Remote, ask.Direction = end.pod, end.iface, end.own, end.peer, end.direction
		e, err := Explain(c, ask)
		if err != nil {
			return p, err
		}
		*end.answer = e.Interfaces[0]
	}
	p.Verdict = worse(p.Egress.Verdict, p.Ingress.Verdict)
	return p, nil
}

// verdictOrder has the verdicts from the worst to the best.
var verdictOrder = []Verdict{NoPath, Denied, NotEnforced, Allowed}

// better returns the better of two verdicts: a sender may choose between two paths.
func better(a, b Verdict) Verdict {
	return verdictOrder[max(slices.Index(verdictOrder, a), slices.Index(verdictOrder, b))]
}

// worse returns the worse of two verdicts: both ends of a path must allow a packet.
func worse(a, b Verdict) Verdict {
	return verdictOrder[min(slices.Index(verdictOrder, a), slices.Index(verdictOrder, b))]
}

// sharedPath is a pair of addresses of two pods on a network.
type sharedPath struct {
	network                    cache.Key
	fromInterface, toInterface string
	from, to                   netip.Addr
}

// sharedPaths returns the pairs of addresses of the same family on networks of both pods, or on the given network only.
func sharedPaths(from, to *cache.PodView, only cache.Key) []sharedPath {
	var paths []sharedPath
	for _, a := range secondary(from) {
		for _, b := range secondary(to) {
			if a.Network != b.Network || only != (cache.Key{}) && a.Network != only {
				continue
			}
			for _, own := range a.Addrs {
				for _, peer := range b.Addrs {
					if sets.FamilyOf(own) == sets.FamilyOf(peer) {
						paths = append(paths, sharedPath{a.Network, a.Interface, b.Interface, own, peer})
					}
				}
			}
		}
	}
	return paths
}

// clusterInterface is the interface on the network of the cluster, which NetworkPolicy protects.
const clusterInterface = "eth0"

// secondary returns the attachments of a pod without that of the cluster's network, unless policies isolate it.
func secondary(pod *cache.PodView) []cache.AttachmentView {
	isIsolated := func(i cache.IsolationView) bool { return i.Interface == clusterInterface }
	if slices.ContainsFunc(pod.Isolated[engine.Ingress], isIsolated) || slices.ContainsFunc(pod.Isolated[engine.Egress], isIsolated) {
		return pod.Attachments
	}
	return slices.DeleteFunc(slices.Clone(pod.Attachments), func(a cache.AttachmentView) bool { return a.Interface == clusterInterface })
}

// networksOf returns the names of the networks of a pod, with a note for a network without an address.
func networksOf(pod *cache.PodView) []string {
	var names []string
	for _, a := range secondary(pod) {
		name := a.Network.String()
		if len(a.Addrs) == 0 {
			name += " (without an address)"
		}
		names = append(names, name)
	}
	return names
}

// PortsOf returns the named ports of a local pod.
func PortsOf(c *cache.Cache, key cache.Key) ([]policy.NamedPort, error) {
	pod, err := viewOf(c, key)
	if err != nil {
		return nil, err
	}
	return pod.Ports, nil
}
