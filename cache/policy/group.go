package policy

import (
	"cmp"
	"slices"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Group specifies a peer group: the peers of a rule on the networks of its policy. It does not know its members; package cache
// fills it. Its digest covers the whole specification and nothing else, so equal groups of several policies share their sets.
type Group struct {
	// Kind decides whether the members are addresses or endpoints.
	Kind engine.GroupKind
	// Digest is the identity of the group. Two groups with equal digests have the same members at any time.
	Digest Digest
	// Comment describes the group in the table, cut to the length of a comment.
	Comment  string
	Networks []Key // sorted
	Peers    []Peer
	Blocks   []Block
	Names    []PortName // sorted; nil unless the group is an EndpointGroup
}

// groupFactory makes the groups of a policy. It hashes the policy's networks only once for each kind of group, since a policy may
// have many groups and many networks.
type groupFactory struct {
	networks []Key
	prefixes map[engine.GroupKind]encoder
}

// newGroupFactory returns a factory for a policy on these networks, which must be sorted.
func newGroupFactory(networks []Key) *groupFactory {
	f := &groupFactory{networks: networks, prefixes: map[engine.GroupKind]encoder{}}
	for _, kind := range []engine.GroupKind{engine.PeerGroup, engine.EndpointGroup} {
		e := newEncoder(string(kind)).count(len(networks))
		for _, n := range networks {
			e.text(n.Namespace).text(n.Name)
		}
		f.prefixes[kind] = e
	}
	return f
}

// addresses returns the group of the addresses of peers and blocks. They may be in any order and repeat.
func (f *groupFactory) addresses(peers []Peer, blocks []Block) *Group {
	blocks = slices.Clone(blocks)
	slices.SortFunc(blocks, func(a, b Block) int { return cmp.Compare(a.text, b.text) })
	blocks = slices.CompactFunc(blocks, func(a, b Block) bool { return a.text == b.text })
	return f.group(&Group{Kind: engine.PeerGroup, Blocks: blocks}, peers)
}

// endpoints returns the group of the named ports of peers. It takes no blocks, since an ipBlock has no pods with named ports.
func (f *groupFactory) endpoints(peers []Peer, names []PortName) *Group {
	return f.group(&Group{Kind: engine.EndpointGroup, Names: names}, peers)
}

// group completes a group: it sorts the peers and sets networks, digest and comment.
func (f *groupFactory) group(g *Group, peers []Peer) *Group {
	g.Networks = f.networks
	g.Peers = slices.Clone(peers)
	slices.SortFunc(g.Peers, Peer.compare)
	g.Peers = slices.CompactFunc(g.Peers, func(a, b Peer) bool { return a.compare(b) == 0 })
	// All that determines the members, in a canonical order: networks (in the prefix), peers, blocks, names.
	e := f.prefixes[g.Kind].clone().count(len(g.Peers))
	for _, p := range g.Peers {
		e.text(p.Scope.Namespace).text(p.Scope.Selector).text(p.Pods.String())
	}
	e.count(len(g.Blocks))
	for _, b := range g.Blocks {
		e.text(b.text)
	}
	e.count(len(g.Names))
	for _, n := range g.Names {
		e.text(ProtocolName(n.Proto)).text(n.Name)
	}
	g.Digest = e.digest()
	g.Comment = comment(g.words(maxComment + 1))
	return g
}

// Name returns the common part of the names of the group's sets.
func (g *Group) Name() string { return string(g.Kind) + "-" + g.Digest.ID() }

// SetName returns the name of the group's set of a family.
func (g *Group) SetName(f sets.Family) string { return engine.GroupSet(g.Kind, g.Digest.ID(), f) }

// Words describes the group for users: "default: pods app=web; 10.0.0.0/8".
func (g *Group) Words() string { return g.words(-1) }

// words returns at least length bytes of the description if it is that long. A negative length means the whole
// description. A comment needs only its first bytes, and a group may have thousands of blocks.
func (g *Group) words(length int) string {
	var b strings.Builder
	if g.Kind == engine.EndpointGroup {
		b.WriteString("ports ")
		for i, n := range g.Names {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(n.Name + "/" + ProtocolName(n.Proto))
		}
		b.WriteString(" of ")
	}
	first := true
	write := func(text string) bool {
		if !first {
			b.WriteString("; ")
		}
		first = false
		b.WriteString(text)
		return length < 0 || b.Len() < length
	}
	for _, p := range g.Peers {
		if !write(p.String()) {
			return b.String()
		}
	}
	for _, block := range g.Blocks {
		if !write(block.text) {
			break
		}
	}
	return b.String()
}

// BlockAddrs returns the union of the addresses of the blocks. An except applies only to its own block.
// The excepted addresses of a block may be in another block.
func (g *Group) BlockAddrs() sets.Addrs {
	var ranges []sets.AddrRange
	for _, b := range g.Blocks {
		addrs := b.addrs()
		for _, f := range sets.Families {
			ranges = slices.AppendSeq(ranges, addrs.Ranges(f))
		}
	}
	return sets.NewAddrs(ranges...)
}
