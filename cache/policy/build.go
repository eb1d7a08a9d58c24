package policy

import (
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// BuildOptions say which chains a section becomes.
type BuildOptions struct {
	Replies  bool // make the chain that judges replies as well
	Counters bool // rules count the packets that they accept
}

// Chain is a section as nftables objects. It refers to sets by name: the sets of Groups, and Ports.
type Chain struct {
	Chain   *engine.Chain
	Replies *engine.Chain // nil without BuildOptions.Replies
	Groups  []*Group      // unique
	Ports   []PortSet     // unique
}

// PortSet is the set of a list of ports.
type PortSet struct {
	Digest Digest
	Ports  sets.Ports
}

// Name returns the name of the set.
func (p PortSet) Name() string { return engine.PortSet(p.Digest.ID()) }

// Variant identifies the chain that a section becomes for a pod with these named ports: pods with equal variants share
// the chain. It is the zero Digest when the named ports make no difference.
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

// Build makes the chain for a pod with these named ports.
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

type builder struct {
	section *Section
	options BuildOptions
	out     *Chain
	known   map[string]bool // sets that the chain refers to already
}

// rule appends the kernel's rules for one rule of the policy. Both families always have a rule, also while a family has
// no member, so that members join and leave without a change of rules.
func (b *builder) rule(r *Rule, ports sets.Ports) {
	d := b.section.Direction
	if !r.AllowsNobody() && (r.AnyPort || !ports.IsEmpty()) {
		match := anyPort
		if !r.AnyPort {
			match = b.matchPorts(ports)
		}
		switch {
		case r.Everyone:
			b.accept(r, nil, nil, match)
		case r.Peers != nil:
			b.peers(r, r.Peers, d.PeerIn, d.Opposite().PeerIn, match)
		}
	}
	if r.Named != nil {
		b.peers(r, r.Named, expr.DestinationEndpointIn, expr.SourceEndpointIn, anyPort)
	}
}

// portMatch is the part of a rule about ports.
type portMatch struct {
	packet  []expr.Statement
	replies [][]expr.Statement // alternatives, each for a rule of its own
}

var anyPort = portMatch{replies: [][]expr.Statement{nil}}

// matchPorts matches a list of ports. The pod may redirect a connection that it accepts to another port, and the port that
// the peer dialed decides: only conntrack knows it when the pod replies.
func (b *builder) matchPorts(p sets.Ports) portMatch {
	name := b.ports(p)
	m := portMatch{packet: []expr.Statement{expr.PortIn(name)}}
	if b.section.Direction == engine.Egress {
		m.replies = [][]expr.Statement{{expr.SourcePortIn(name)}}
		return m
	}
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

// ports notes a list of ports and returns the name of its set.
func (b *builder) ports(p sets.Ports) string {
	set := PortSet{Digest: encodePorts(newEncoder("ports"), p).digest(), Ports: p}
	if name := set.Name(); !b.known[name] {
		b.known[name] = true
		b.out.Ports = append(b.out.Ports, set)
	}
	return set.Name()
}

// match finds an address in the set of one family.
type match func(f sets.Family, set string) expr.Statement

func (b *builder) peers(r *Rule, g *Group, packet, reply match, ports portMatch) {
	if name := g.Name(); !b.known[name] {
		b.known[name] = true
		b.out.Groups = append(b.out.Groups, g)
	}
	for _, f := range sets.Families {
		name := g.SetName(f)
		b.accept(r, []expr.Statement{packet(f, name)}, []expr.Statement{reply(f, name)}, ports)
	}
}

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
