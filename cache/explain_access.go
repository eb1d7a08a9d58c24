package cache

import (
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// access is what an interface of a pod lets pass in one direction.
type access struct {
	state AccessState
	terms []term // one of them is enough
}

// AccessState is what an interface of a pod is in one direction.
type AccessState string

// The states. Nothing passes on an interface that is absent, or of a pod that is; all passes on one that is open.
const (
	Absent   AccessState = "absent"
	Open     AccessState = "open"
	Isolated AccessState = "isolated"
)

// term is addresses of peers, each with the same ports. Protocols without ports are in it as if they had them all.
type term struct {
	addrs sets.Addrs
	ports sets.Ports
}

// otherProtocols stands for all protocols that have no number of their own here. IANA keeps the number reserved.
const otherProtocols = 255

// The whole of what can be allowed.
var (
	wholeProtocols = []uint8{protoICMP, protoTCP, protoUDP, protoICMPv6, protoSCTP, otherProtocols}
	everyPort      = wholeOf(wholeProtocols...)
	everyAddr      = sets.NewAddrs(wholeFamily[0], wholeFamily[1])
)

// place is an interface and a direction.
type place struct {
	iface     string
	direction direction
}

// accessOf returns what each interface of a pod lets pass. A pod that is not there has none.
func (c *Cache) accessOf(key Key) (map[place]access, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := map[place]access{}
	if c.pods[key] == nil {
		return all, nil
	}
	err := c.withTarget(key, func(t *target) error {
		for _, d := range directions {
			for _, iface := range t.pod.interfaces() {
				all[place{iface, d}] = access{Open, []term{{everyAddr, everyPort}}}
			}
			for _, g := range c.guards(t, d) {
				all[place{g.iface, d}] = access{Isolated, c.terms(t.pod, d, g)}
			}
		}
		return nil
	})
	return all, err
}

// terms follows explainInterface: what is common to all pods, but for neighbor discovery and custom rules, and then the
// policies.
func (c *Cache) terms(p *pod, d direction, g guard) []term {
	terms := c.commonTerms(p, d, g.iface)
	for _, policy := range g.policies {
		for _, r := range policy.sections[d].rules {
			if ports := r.portsFor(d, p.ports); r.anyPort {
				terms = append(terms, term{c.addrsOf(r), everyPort})
			} else if !ports.IsEmpty() {
				terms = append(terms, term{c.addrsOf(r), ports})
			}
			if r.named != nil {
				terms = append(terms, c.endpointTerms(r.named)...)
			}
		}
	}
	return terms
}

func (c *Cache) commonTerms(p *pod, d direction, iface string) []term {
	var terms []term
	if c.options.AcceptICMP {
		terms = append(terms, term{everyAddr, wholeOf(protoICMP)})
	}
	if c.options.AcceptICMPv6 {
		terms = append(terms, term{everyAddr, wholeOf(protoICMPv6)})
	}
	common := c.options.common(d)
	remote, own := common.Sources, common.Destinations
	if d == egress {
		remote, own = own, remote
	}
	terms = append(terms, term{remote, everyPort})
	for i, f := range sets.Families {
		if containsAll(own, p.addrsOf(iface, f)) {
			terms = append(terms, term{sets.NewAddrs(wholeFamily[i]), everyPort})
		}
	}
	return terms
}

// addrsOf returns the addresses of a rule's peers.
func (c *Cache) addrsOf(r rule) sets.Addrs {
	if r.everyone {
		return everyAddr
	}
	user := &policyChain{}
	g := c.acquireGroup(r.peers, user)
	defer c.releaseGroup(g, user)
	return g.addrs
}

// endpointTerms returns the endpoints of a group, one term a port.
func (c *Cache) endpointTerms(spec *groupSpec) []term {
	user := &policyChain{}
	g := c.acquireGroup(spec, user)
	defer c.releaseGroup(g, user)
	byPort := map[sets.PortRange][]sets.AddrRange{}
	for _, f := range sets.Families {
		for e := range g.endpoints.All(f) {
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

func wholeOf(protocols ...uint8) sets.Ports {
	var all []sets.PortRange
	for _, p := range protocols {
		all = append(all, sets.PortRange{Proto: p, From: 0, To: maxPort})
	}
	return sets.NewPorts(all...)
}
