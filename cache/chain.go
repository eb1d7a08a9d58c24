package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// policyChain is the chain of one direction of a policy, and what it refers to. Pods share it, unless named ports make
// it another one for them. It exists while a local pod uses it, and keeps its groups active for as long.
type policyChain struct {
	section  *section
	resolved string // key in section.chains
	chain    *engine.Chain
	replies  *engine.Chain // nil unless established connections are revoked
	groups   []*group
	ports    []*engine.Set
	targets  map[*target]struct{}
}

// acquireChain returns the chain of a section for a local pod.
func (c *Cache) acquireChain(s *section, t *target) *policyChain {
	resolved := s.resolve(t.pod.ports)
	pc := s.chains[resolved]
	if pc == nil {
		pc = &policyChain{section: s, resolved: resolved, targets: map[*target]struct{}{}}
		s.chains[resolved] = pc
		pc.chain = &engine.Chain{Name: s.chainName}
		if c.options.RevokeEstablished {
			pc.replies = &engine.Chain{Name: repliesPrefix + s.chainName}
		}
		for _, r := range s.rules {
			c.addRules(pc, r, r.portsFor(s.direction, t.pod.ports))
		}
	}
	pc.targets[t] = struct{}{}
	return pc
}

func (c *Cache) releaseChain(pc *policyChain, t *target) {
	delete(pc.targets, t)
	if len(pc.targets) > 0 {
		return
	}
	delete(pc.section.chains, pc.resolved)
	for _, g := range pc.groups {
		c.releaseGroup(g, pc)
	}
	for _, s := range pc.ports {
		c.releasePorts(s)
	}
}

// resolve returns what the named ports of a pod make of the section, empty when they make no difference.
func (s *section) resolve(ports []namedPort) string {
	if !s.byName {
		return ""
	}
	var names strings.Builder
	for _, r := range s.rules {
		names.WriteString(portsName(r.portsFor(s.direction, ports)))
	}
	return names.String()
}

// addRules appends the kernel's rules for one rule of the policy. Both families are always there, also while nobody is
// in one of them, so that members come and go without a change of rules.
func (c *Cache) addRules(pc *policyChain, r rule, ports sets.Ports) {
	d := pc.section.direction
	if r.anyPort || !ports.IsEmpty() {
		var port, replyPort []expr.Statement
		if !r.anyPort {
			set := c.acquirePorts(ports)
			pc.ports = append(pc.ports, set)
			port, replyPort = []expr.Statement{expr.PortIn(set.Name)}, []expr.Statement{expr.SourcePortIn(set.Name)}
		}
		if r.everyone {
			c.accept(pc, r, port, replyPort)
		} else {
			c.addPeerRules(pc, r, r.peers, peerMatch{d.peerIn, d.opposite().peerIn}, port, replyPort)
		}
	}
	if r.named != nil {
		c.addPeerRules(pc, r, r.named, peerMatch{expr.DestinationEndpointIn, expr.SourceEndpointIn}, nil, nil)
	}
}

// peerMatch finds a peer in a set: by the packets of a connection, and by the replies.
type peerMatch struct {
	packet, reply func(sets.Family, string) expr.Statement
}

func (c *Cache) addPeerRules(pc *policyChain, r rule, spec *groupSpec, match peerMatch, port, replyPort []expr.Statement) {
	if g := c.acquireGroup(spec, pc); !slices.Contains(pc.groups, g) {
		pc.groups = append(pc.groups, g)
	}
	for _, f := range sets.Families {
		name := spec.setName(f)
		c.accept(pc, r, append([]expr.Statement{match.packet(f, name)}, port...),
			append([]expr.Statement{match.reply(f, name)}, replyPort...))
	}
}

func (c *Cache) accept(pc *policyChain, r rule, packet, reply []expr.Statement) {
	add := func(to *engine.Chain, matches []expr.Statement) {
		to.Rules = append(to.Rules, engine.Rule{Statements: append(matches, expr.Accept()), Comment: r.comment})
	}
	if c.options.PolicyCounters {
		packet = append(packet, expr.Counter())
	}
	add(pc.chain, packet)
	if pc.replies != nil {
		add(pc.replies, reply)
	}
}

// commonChain is what passes on every isolated interface or, with the prefix of replies, what answers that.
func commonChain(d direction, o Options, prefix string) *engine.Chain {
	chain := &engine.Chain{Name: prefix + "common-" + d.String()}
	add := func(match expr.Statement) {
		chain.Rules = append(chain.Rules, engine.Rule{Statements: []expr.Statement{match, expr.Accept()}})
	}
	if prefix == "" { // conntrack does not track it, so that nothing of it is a reply
		for _, match := range expr.NeighborDiscovery() {
			add(match)
		}
	}
	if o.AcceptICMP {
		add(expr.ICMP(sets.V4))
	}
	if o.AcceptICMPv6 {
		add(expr.ICMP(sets.V6))
	}
	chain.Rules = append(chain.Rules, o.common(d).userRules(d, prefix)...)
	return chain
}

// baseChain sends the packets of each isolated interface to its chain.
func baseChain(d direction, guards []guard) *engine.Chain {
	chain := &engine.Chain{Name: string(d.hook()), Hook: d.hook()}
	for _, g := range guards {
		chain.Rules = append(chain.Rules, engine.Rule{
			Statements: []expr.Statement{d.onInterface(g.iface), expr.Goto(interfaceChainName(d, g.iface))},
		})
	}
	return chain
}

// interfaceChain lets pass what the policies of an isolated interface allow, and drops the rest. Of a connection it
// looks at the first packet or, where the connection can be revoked, at every packet: a reply passes as long as what it
// answers does.
func interfaceChain(d direction, g guard, revoke, otherWayIsolated bool) *engine.Chain {
	chain := &engine.Chain{Name: interfaceChainName(d, g.iface)}
	add := func(statements ...expr.Statement) {
		chain.Rules = append(chain.Rules, engine.Rule{Statements: statements})
	}
	switch {
	case !revoke:
		add(expr.Established(), expr.Accept())
	case otherWayIsolated:
		add(expr.InState(expr.Is, expr.StateRelated), expr.Accept())
		add(append(expr.ReplyOfEstablished(), expr.Jump(repliesPrefix+interfaceChainName(d.opposite(), g.iface)))...)
	default:
		add(expr.InState(expr.Is, expr.StateRelated), expr.Accept())
		add(append(expr.ReplyOfEstablished(), expr.Accept())...)
	}
	chain.Rules = append(chain.Rules, g.jumps("", d)...)
	add(expr.Counter(), expr.Drop())
	return chain
}

// repliesPrefix begins the name of the chain that does for replies what the chain of the rest of the name does for what
// they answer.
const repliesPrefix = "replies-"

// repliesChain lets pass the replies that go out of the interface, or for egress come in, for what its interfaceChain
// lets pass.
func repliesChain(d direction, g guard) *engine.Chain {
	return &engine.Chain{Name: repliesPrefix + interfaceChainName(d, g.iface), Rules: g.jumps(repliesPrefix, d)}
}

// jumps go to what is common to all interfaces, and to the policies.
func (g guard) jumps(prefix string, d direction) []engine.Rule {
	rules := []engine.Rule{{Statements: []expr.Statement{expr.Jump(prefix + "common-" + d.String())}}}
	for _, p := range g.policies {
		s := p.sections[d]
		rules = append(rules, engine.Rule{Statements: []expr.Statement{expr.Jump(prefix + s.chainName)}, Comment: comment(s.policy)})
	}
	return rules
}

// interfaceChainName is the interface's name as it is where nft takes that in an identifier. Where not, a hash follows
// what is left of it. That is longer than any name of an interface, so it is never the chain of another one.
func interfaceChainName(d direction, iface string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("_.-", r):
			return r
		}
		return '_'
	}, iface)
	if name != iface {
		sum := sha256.Sum256([]byte(iface))
		name += "-" + hex.EncodeToString(sum[:8])
	}
	return d.String() + "-" + name
}
