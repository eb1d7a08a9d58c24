package policy

import (
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// BuildOptions control the chains that Build makes.
type BuildOptions struct {
	Replies  bool // also make a chain that judges replies
	Counters bool // rules count the packets that they accept

	// Split reports whether a set of its own has the pods of a group in a family. nil: no group is split.
	Split func(*Group, sets.Family) bool
}

// Chain is a section as nftables objects. Its rules refer to sets by name. The caller must add the sets of Groups and Ports to
// the table.
type Chain struct {
	Chain   *engine.Chain
	Replies *engine.Chain // nil without BuildOptions.Replies
	Groups  []*Group      // unique
	Ports   []PortSet     // unique
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
func (s *Section) Build(pod []NamedPort, o BuildOptions) *Chain {
	b := builder{section: s, options: o, out: &Chain{Chain: &engine.Chain{Name: s.ChainName}}, known: map[string]bool{}}
	if o.Replies {
		b.out.Replies = &engine.Chain{Name: engine.RepliesPrefix + s.ChainName}
	}
	for i := range s.Rules {
		b.rule(&s.Rules[i], s.Rules[i].PortsFor(s.Direction, pod))
	}
	return b.out
}

// builder collects the rules of a chain and the sets that they refer to.
type builder struct {
	section *Section
	options BuildOptions
	out     *Chain
	known   map[string]bool // names of the groups and port sets in out
}

// rule appends the kernel rules for a rule of the policy. Both families have a rule even if the group has no member of a family,
// so that members can join and leave without a change of rules.
func (b *builder) rule(r *Rule, ports sets.Ports) {
	d := b.section.Direction
	// A rule with peers but without a valid port allows nothing by port; it may still allow named ports of peers.
	if !r.AllowsNobody() && (r.AnyPort || !ports.IsEmpty()) {
		match := anyPort
		if !r.AnyPort {
			match = b.matchPorts(ports)
		}
		switch {
		case r.Everyone:
			// Without a match of the peer, a single rule serves both families.
			b.accept(r, nil, nil, match)
		case r.Peers != nil:
			b.peers(r, r.Peers, d.PeerIn, d.Opposite().PeerIn, match)
		}
	}
	// Named ports of peers for egress: each peer may have another number under the name.
	if r.Named != nil {
		b.peers(r, r.Named, expr.DestinationEndpointIn, expr.SourceEndpointIn, anyPort)
	}
}

// portMatch is the part of a rule that matches ports.
type portMatch struct {
	packet  []expr.Statement   // for packets in the direction of the section
	replies [][]expr.Statement // for replies: alternatives, each becomes a rule
}

// anyPort matches all ports and protocols.
// Its replies are a single alternative without a match.
var anyPort = portMatch{replies: [][]expr.Statement{nil}}

// matchPorts returns the match for a list of ports.
//
// For ingress, a reply is matched by the port that the peer dialed, which only conntrack knows: the pod may redirect connections
// to another port, such as the port of a service mesh, and its replies come from that port.
func (b *builder) matchPorts(p sets.Ports) portMatch {
	name := b.ports(p)
	m := portMatch{packet: []expr.Statement{expr.PortIn(name)}}
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

// ports adds the set of a list of ports to the chain, and returns the name of the set.
func (b *builder) ports(p sets.Ports) string {
	set := PortSet{Digest: encodePorts(newEncoder("ports"), p).digest(), Ports: p}
	if name := set.Name(); !b.known[name] {
		b.known[name] = true
		b.out.Ports = append(b.out.Ports, set)
	}
	return set.Name()
}

// match returns a statement that looks up the peer in the set of a family.
type match func(f sets.Family, set string) expr.Statement

// peers appends the rules that accept packets of a group's members, one for each set of the group. The rule for the set of
// pods comes first, since most peers are pods and a lookup in a hash set is short. reply matches the peer in replies, where
// source and destination are exchanged.
func (b *builder) peers(r *Rule, g *Group, packet, reply match, ports portMatch) {
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
func (b *builder) accept(r *Rule, peer, replyPeer []expr.Statement, ports portMatch) {
	add := func(to *engine.Chain, statements ...[]expr.Statement) {
		to.Rules = append(to.Rules, engine.Rule{Statements: slices.Concat(statements...), Comment: r.Comment})
	}
	accept := []expr.Statement{expr.Accept()}
	if b.options.Counters {
		add(b.out.Chain, peer, ports.packet, []expr.Statement{expr.Counter()}, accept)
	} else {
		add(b.out.Chain, peer, ports.packet, accept)
	}
	if b.out.Replies != nil {
		for _, match := range ports.replies {
			add(b.out.Replies, replyPeer, match, accept)
		}
	}
}
