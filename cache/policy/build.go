package policy

import (
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// BuildOptions control the chains that Build makes.
// The zero value makes the chain of packets alone, without counters and second sets.
type BuildOptions struct {
	Replies  bool // also make a chain that judges replies
	Counters bool // rules count the packets that they accept

	// Split reports whether a set of its own has the pods of a group in a family. nil: no group is split.
	Split func(*Group, sets.Family) bool
}

// Chain is a section as nftables objects. Its rules refer to sets by name. The caller must add the sets of Groups and Ports to
// the table.
//
// If all rules of the section have the same list of ports, the rules of the chain match no ports. The caller must then put the
// match Guard into each rule that jumps to the chain:
//
//	th dport . meta l4proto @ports-ID jump ingress-policy-ID
//
// So a packet to another port costs one lookup for the whole policy, and no lookup of a peer.
type Chain struct {
	Chain   *engine.Chain
	Replies *engine.Chain // nil without BuildOptions.Replies
	Guard   PortMatch
	Groups  []*Group  // unique
	Ports   []PortSet // unique
}

// PortSet is a set of ports with the digest of its content, which gives the set its name.
type PortSet struct {
	Digest Digest
	Ports  sets.Ports
}

// Name returns the name of the set.
func (p PortSet) Name() string { return engine.PortSet(p.Digest.ID()) }

// Variant identifies the chain of the section for a pod with these named ports. Pods with equal variants share the chain. It is
// the zero Digest if the section does not depend on named ports.
// It is an identity within the section only.
func (s *Section) Variant(pod []NamedPort) Digest {
	if !s.ByName {
		return Digest{}
	}
	e := newEncoder("variant")
	for i := range s.Rules {
		encodePorts(e, s.Rules[i].PortsFor(s.Direction, pod))
	}
	return e.digest()
}

// Build makes the chain of the section for a pod with these named ports, which must be sorted. Equal arguments give an
// equal chain. Pods share the result, so nobody may change it.
// It takes no lock, and its time grows with the rules of the section.
func (s *Section) Build(pod []NamedPort, o BuildOptions) *Chain {
	b := builder{section: s, options: o, out: &Chain{Chain: &engine.Chain{Name: s.ChainName}}, known: map[string]bool{}, users: map[string]int{}}
	if o.Replies {
		b.out.Replies = &engine.Chain{Name: engine.RepliesPrefix + s.ChainName}
	}
	ports := b.allPorts(pod)
	for i := range s.Rules {
		b.rule(&s.Rules[i], ports[i])
	}
	return b.out
}

// builder collects the rules of a chain and the sets that they refer to.
type builder struct {
	section *Section
	options BuildOptions
	out     *Chain
	known   map[string]bool // names of the groups and port sets in out
	users   map[string]int  // number of rules that match a list of ports, by the ID of the PortMatch
}

// allPorts returns the match for the ports of each rule of the section; nil: the rule allows no port. It sets the guard of the
// chain if all rules share a match.
func (b *builder) allPorts(pod []NamedPort) []*PortMatch {
	all := make([]*PortMatch, len(b.section.Rules))
	for i := range all {
		r := &b.section.Rules[i]
		if r.Named != nil {
			b.users[""]++
		}
		ports := r.PortsFor(b.section.Direction, pod)
		if r.AllowsNobody() || !r.AnyPort && ports.IsEmpty() {
			continue
		}
		all[i] = &PortMatch{}
		if !r.AnyPort {
			all[i] = b.matchPorts(ports)
		}
		b.users[all[i].ID]++
	}
	if len(b.users) > 1 || b.users[""] > 0 {
		return all
	}
	for i, m := range all {
		if m != nil {
			b.out.Guard, all[i] = *m, &PortMatch{}
		}
	}
	return all
}

// rule appends the kernel rules for a rule of the policy. Both families have a rule even if the group has no member of a family,
// so that members can join and leave without a change of rules.
// ports is nil for a rule that allows no port; such a rule has no kernel rule.
func (b *builder) rule(r *Rule, ports *PortMatch) {
	d := b.section.Direction
	switch {
	case ports == nil:
	case r.Everyone:
		// Without a match of the peer, a single rule serves both families.
		b.accept(r, nil, nil, ports)
	case r.Peers != nil:
		b.peers(r, r.Peers, d.PeerIn, d.Opposite().PeerIn, ports)
	}
	// Named ports of peers for egress: each peer may have another number under the name.
	if r.Named != nil {
		b.peers(r, r.Named, expr.DestinationEndpointIn, expr.SourceEndpointIn, &PortMatch{})
	}
}

// PortMatch matches the ports of a rule. The zero PortMatch matches all ports and protocols.
type PortMatch struct {
	ID      string             // of the port set, see engine.PortSet; empty: all ports and protocols
	packet  []expr.Statement   // for packets in the direction of the section
	replies [][]expr.Statement // for replies: alternatives, each becomes a rule
}

// Alternatives returns the matches for packets, or for replies to them. Each of them becomes a rule.
func (m *PortMatch) Alternatives(replies bool) [][]expr.Statement {
	switch {
	case m.ID == "":
		return [][]expr.Statement{nil}
	case replies:
		return m.replies
	}
	return [][]expr.Statement{m.packet}
}

// matchPorts returns the match for a list of ports, and adds the set of the list.
//
// For ingress, a reply is matched by the port that the peer dialed, which only conntrack knows: the pod may redirect connections
// to another port, such as the port of a service mesh, and its replies come from that port.
func (b *builder) matchPorts(p sets.Ports) *PortMatch {
	set := PortSet{Digest: encodePorts(newEncoder("ports"), p).digest(), Ports: p}
	name := set.Name()
	if !b.known[name] {
		b.known[name] = true
		b.out.Ports = append(b.out.Ports, set)
	}
	m := &PortMatch{ID: set.Digest.ID(), packet: []expr.Statement{expr.PortIn(name)}}
	if b.section.Direction == engine.Egress {
		m.replies = [][]expr.Statement{{expr.SourcePortIn(name)}}
		return m
	}
	// DialedPortIn is for a single protocol, so each protocol has a rule of its own.
	for _, t := range protocols(p) {
		m.replies = append(m.replies, []expr.Statement{expr.DialedPortIn(t, name)})
	}
	return m
}

// protocols returns the protocols of a list of ports.
func protocols(p sets.Ports) (list []expr.Transport) {
	for r := range p.Ranges() {
		if t := expr.Transport(r.Proto); !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	return list
}

// match returns a statement that looks up the peer in the set of a family.
type match func(f sets.Family, set string) expr.Statement

// peers appends the rules that accept packets of a group's members, one for each set of the group. The rule for the set of
// pods comes first, since most peers are pods and a lookup in a hash set is short. reply matches the peer in replies, where
// source and destination are exchanged.
func (b *builder) peers(r *Rule, g *Group, packet, reply match, ports *PortMatch) {
	if name := g.Name(); !b.known[name] {
		b.known[name] = true
		b.out.Groups = append(b.out.Groups, g)
	}
	for _, f := range sets.Families {
		names := []string{g.SetName(f)}
		if b.options.Split != nil && b.options.Split(g, f) {
			names = []string{engine.PodsSet(names[0]), names[0]}
		}
		for _, name := range names {
			b.accept(r, []expr.Statement{packet(f, name)}, []expr.Statement{reply(f, name)}, ports)
		}
	}
}

// accept appends a rule that accepts packets, and the rules that accept the replies to them.
//
// A rule with ports of its own looks up the ports first: packets to other ports then cost no lookup of a peer, which takes longer.
// If rules share a list of ports, most packets that reach a rule have such a port, so the rules look up the peer first.
func (b *builder) accept(r *Rule, peer, replyPeer []expr.Statement, ports *PortMatch) {
	isFirst := b.users[ports.ID] == 1
	add := func(to *engine.Chain, peer, ports []expr.Statement, verdict ...expr.Statement) {
		matches := slices.Concat(peer, ports)
		if isFirst {
			matches = slices.Concat(ports, peer)
		}
		to.Rules = append(to.Rules, engine.Rule{Statements: append(matches, verdict...), Comment: r.Comment})
	}
	for _, match := range ports.Alternatives(false) {
		if b.options.Counters {
			add(b.out.Chain, peer, match, expr.Counter(), expr.Accept())
		} else {
			add(b.out.Chain, peer, match, expr.Accept())
		}
	}
	if b.out.Replies != nil {
		for _, match := range ports.Alternatives(true) {
			add(b.out.Replies, replyPeer, match, expr.Accept())
		}
	}
}
