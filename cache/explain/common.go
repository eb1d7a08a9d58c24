package explain

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// IP protocol numbers (IANA) in the common chain, beside the protocols of policies.
const (
	protoICMP   = 1
	protoIGMP   = 2
	protoICMPv6 = 58
)

// explainCommon names the rule of the common chain that lets the packet pass. It returns "" if no rule does. Custom rules
// end that chain.
// by is the value of DecidedBy, reason the value of Reason.
func (e *explainer) explainCommon(iface string) (by, reason string) {
	q := e.query
	switch {
	case q.isIGMP():
		return "IGMP", "multicast does not work on a link without IGMP, so messages to a group always pass"
	case q.isNeighborDiscovery():
		return "neighbor discovery", "IPv6 does not work on a link without neighbor and router discovery and MLD, so they always pass"
	case e.settings.AcceptICMP && q.Protocol == protoICMP:
		return "--accept-icmp", "all ICMP passes"
	case e.settings.AcceptICMPv6 && q.Protocol == protoICMPv6:
		return "--accept-icmpv6", "all ICMPv6 passes"
	}
	// Source and destination are those of the packet; the pod's own end may have several addresses.
	source, destination := []netip.Addr{q.Remote}, q.ownAddrs(e.pod, iface)
	if q.Direction == engine.Egress {
		source, destination = destination, source
	}
	common := e.settings.Common(q.Direction)
	switch {
	case containsAll(common.Sources, source):
		return "allowed source prefixes", "the flags let pass all " + q.Direction.String() + " traffic from " + joinAddrs(source)
	case containsAll(common.Destinations, destination):
		return "allowed destination prefixes", "the flags let pass all " + q.Direction.String() + " traffic to " + joinAddrs(destination)
	}
	return "", ""
}

// isNeighborDiscovery reports whether the packet is a message of MLD, router or neighbor discovery (RFC 2710, RFC 4861)
// or a report of MLDv2 (RFC 9777), which expr.LinkControl lets pass.
// Types 130 to 136 are the MLD messages and router and neighbor discovery; 143 is the report of MLDv2.
func (q Query) isNeighborDiscovery() bool {
	return q.Remote.Is6() && q.Protocol == protoICMPv6 && (q.ICMPType >= 130 && q.ICMPType <= 136 || q.ICMPType == 143)
}

// isIGMP reports whether the packet goes to a group. The group is the pod's end of ingress traffic (RFC 9776).
func (q Query) isIGMP() bool {
	group := q.Remote
	if q.Direction == engine.Ingress {
		group = q.Local
	}
	return q.Protocol == protoIGMP && group.Is4() && group.IsMulticast()
}

// addrsOf returns the pod's own addresses on an interface.
// The result is empty if the interface has no address of the family.
func addrsOf(pod *cache.PodView, iface string, f sets.Family) []netip.Addr {
	var own []netip.Addr
	for _, a := range pod.Attachments {
		for _, addr := range a.Addrs {
			if a.Interface == iface && sets.FamilyOf(addr) == f {
				own = append(own, addr)
			}
		}
	}
	return own
}

// ownAddrs returns the addresses of the pod that the packet may have.
// Without Local, all addresses of the interface in the remote end's family may be the pod's.
func (q Query) ownAddrs(pod *cache.PodView, iface string) []netip.Addr {
	if q.Local.IsValid() {
		return []netip.Addr{q.Local}
	}
	return addrsOf(pod, iface, sets.FamilyOf(q.Remote))
}

// containsAll reports whether the set contains all addresses of a list that is not empty. It is unknown which of its
// own addresses a pod uses for a connection, so all of them must be in the set.
func containsAll(s sets.Addrs, addrs []netip.Addr) bool {
	return len(addrs) > 0 && !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !s.Contains(a) })
}

// joinAddrs returns the addresses as text, with commas.
func joinAddrs(addrs []netip.Addr) string {
	texts := make([]string, 0, len(addrs))
	for _, a := range addrs {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ", ")
}
