package explain

import (
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// access describes the connections that an interface of a pod lets pass in a direction. The zero value belongs to an
// interface that does not exist: nothing passes.
// Two accesses of an interface, before and after a change, are compared by a sweep.
type access struct {
	state AccessState
	terms []term // a connection passes if any term matches
}

// AccessState is the state of an interface of a pod in a direction.
type AccessState string

// The states. Nothing passes on an absent interface, nor on the interfaces of an absent pod. Everything passes on an open
// interface and in audit mode, and may pass on an interface on which policies cannot be enforced.
const (
	Absent     AccessState = "absent"
	Open       AccessState = "open"
	Isolated   AccessState = "isolated"
	Audited    AccessState = "in audit mode"
	Unenforced AccessState = "isolated, but not enforced"
)

// term is a set of peers' addresses that share a set of ports. Protocols without ports are in it as if they had all
// ports.
// A term stands for its product: each address with each port. A rule with 3 peers and 2 ports is a single term.
type term struct {
	addrs sets.Addrs
	ports sets.Ports
}

// otherProtocols stands for all protocols that have no number of their own here. IANA keeps the number 255 reserved, so
// no packet has it.
const otherProtocols = 255

// All addresses and ports, in both families.
var (
	wholeProtocols = []uint8{protoICMP, policy.TCP, policy.UDP, protoICMPv6, policy.SCTP, otherProtocols}
	everyPort      = wholeOf(wholeProtocols...)
	everyAddr      = sets.NewAddrs(wholeFamily[0], wholeFamily[1])
)

// place is an interface of a pod and a direction, the unit of a comparison.
type place struct {
	iface     string
	direction engine.Direction
}

// accessOf returns the connections that each interface of a pod lets pass. A missing pod has no interfaces.
// Terms are complete for isolated interfaces only; the other states have a term with everything, or none.
func accessOf(c *cache.Cache, key cache.Key) map[place]access {
	all := map[place]access{}
	pod, ok := c.View(key)
	// Unknown interfaces are left out, since it is unknown what passes.
	if !ok || !pod.Known {
		return all
	}
	for _, d := range engine.Directions {
		// Interfaces are open unless the next loop says otherwise.
		for _, iface := range pod.Interfaces() {
			all[place{iface, d}] = access{Open, []term{{everyAddr, everyPort}}}
		}
		for _, i := range pod.Isolated[d] {
			if i.Unenforceable != "" {
				all[place{i.Interface, d}] = access{Unenforced, []term{{everyAddr, everyPort}}}
				continue
			}
			if i.Audited {
				all[place{i.Interface, d}] = access{Audited, []term{{everyAddr, everyPort}}}
				continue
			}
			all[place{i.Interface, d}] = access{Isolated, terms(c, &pod, d, i)}
		}
	}
	return all
}

// terms returns the terms of an isolated interface. It follows explainInterface: the rules that all pods share, apart
// from neighbor discovery and custom rules, and then the policies.
// Their order does not matter, as a connection passes if any of them matches.
func terms(c *cache.Cache, pod *cache.PodView, d engine.Direction, i cache.IsolationView) []term {
	terms := commonTerms(c.Settings(), pod, d, i.Interface)
	for _, p := range i.Effective {
		for j := range p.Sections[d].Rules {
			terms = append(terms, ruleTerms(c, &p.Sections[d].Rules[j], d, pod.Ports)...)
		}
	}
	return terms
}

// ruleTerms returns the terms of a rule of a policy, as policy.Section.Build makes rules of it.
// ports are the named ports of the pod that the policy isolates.
func ruleTerms(c *cache.Cache, r *policy.Rule, d engine.Direction, ports []policy.NamedPort) []term {
	var terms []term
	addrs := everyAddr
	if !r.Everyone {
		addrs = sets.Addrs{}
		if r.Peers != nil {
			addrs, _ = c.Members(r.Peers)
		}
	}
	if r.AnyPort {
		terms = append(terms, term{addrs, everyPort})
	} else if ports := r.PortsFor(d, ports); !ports.IsEmpty() {
		terms = append(terms, term{addrs, ports})
	}
	if r.Named != nil {
		terms = append(terms, endpointTerms(c, r.Named)...)
	}
	return terms
}

// commonTerms returns the terms of the flags --accept-… and --allow-…-prefix.
// They hold for every interface that is isolated.
func commonTerms(o *cache.Options, pod *cache.PodView, d engine.Direction, iface string) []term {
	var terms []term
	if o.AcceptICMP {
		terms = append(terms, term{everyAddr, wholeOf(protoICMP)})
	}
	if o.AcceptICMPv6 {
		terms = append(terms, term{everyAddr, wholeOf(protoICMPv6)})
	}
	common := o.Common(d)
	remote, own := common.Sources, common.Destinations
	if d == engine.Egress {
		remote, own = own, remote
	}
	terms = append(terms, term{remote, everyPort})
	// A prefix for the pod's own end counts only if it holds for all addresses that the pod may use.
	for i, f := range sets.Families {
		if containsAll(own, addrsOf(pod, iface, f)) {
			terms = append(terms, term{sets.NewAddrs(wholeFamily[i]), everyPort})
		}
	}
	return terms
}

// endpointTerms returns the endpoints of a group, with a term for each port.
// A named port belongs to the peer that has it, so peers with the same number share a term.
func endpointTerms(c *cache.Cache, spec *policy.Group) []term {
	_, endpoints := c.Members(spec)
	byPort := map[sets.PortRange][]sets.AddrRange{}
	for _, f := range sets.Families {
		for e := range endpoints.All(f) {
			port := sets.PortRange{Proto: e.Proto, From: e.Port, To: e.Port}
			byPort[port] = append(byPort[port], sets.Single(e.Addr))
		}
	}
	var terms []term
	for port, addrs := range byPort {
		terms = append(terms, term{sets.NewAddrs(addrs...), sets.NewPorts(port)})
	}
	return terms
}

// wholeOf returns all ports of the protocols.
// Port 0 is included, although no packet of a connection has it, so that the ranges of a protocol join.
func wholeOf(protocols ...uint8) sets.Ports {
	var all []sets.PortRange
	for _, p := range protocols {
		all = append(all, sets.PortRange{Proto: p, From: 0, To: policy.MaxPort})
	}
	return sets.NewPorts(all...)
}
