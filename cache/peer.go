package cache

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// peer is pods that a rule allows: which ones, in which namespaces.
type peer struct {
	scope      scopeKey
	namespaces *selector // nil: the one namespace of the scope
	pods       *selector
}

// block is addresses that a rule allows.
type block struct {
	prefix netip.Prefix
	except []netip.Prefix // sorted
}

// groupSpec is what a peer group is, apart from who is in it. Its name is made of all of it and of nothing else.
type groupSpec struct {
	name     string
	comment  string
	networks []Key // sorted
	peers    []peer
	blocks   []block
	names    []portName // sorted; nil: addresses
}

// newGroupSpec takes lists in any order, with repeats.
func newGroupSpec(networks []Key, peers []peer, blocks []block, names []portName) *groupSpec {
	g := &groupSpec{networks: networks, names: names}
	g.peers = slices.Clone(peers)
	slices.SortFunc(g.peers, peer.compare)
	g.peers = slices.CompactFunc(g.peers, func(a, b peer) bool { return a.compare(b) == 0 })
	if names == nil { // a block has no pods to name ports
		g.blocks = slices.Clone(blocks)
		slices.SortFunc(g.blocks, func(a, b block) int { return cmp.Compare(a.String(), b.String()) })
		g.blocks = slices.CompactFunc(g.blocks, func(a, b block) bool { return a.String() == b.String() })
	}
	kind, id := g.identity()
	g.name = kind + "-" + id
	g.comment = comment(g.words())
	return g
}

func (g *groupSpec) identity() (kind, id string) {
	kind = "peers"
	if g.names != nil {
		kind = "endpoints"
	}
	c := newCanon(kind).count(len(g.networks))
	for _, n := range g.networks {
		c.text(n.Namespace).text(n.Name)
	}
	c.count(len(g.peers))
	for _, p := range g.peers {
		c.text(p.scope.namespace).text(p.scope.selector).text(p.pods.text)
	}
	c.count(len(g.blocks))
	for _, b := range g.blocks {
		c.text(b.String())
	}
	c.count(len(g.names))
	for _, n := range g.names {
		c.text(protocolName(n.proto)).text(n.name)
	}
	return kind, c.id()
}

// setName is the name of its set of one family.
func (g *groupSpec) setName(f sets.Family) string { return g.name + "-" + f.String() }

// words says what the group is, for a person who reads the table.
func (g *groupSpec) words() string {
	var parts []string
	for _, p := range g.peers {
		parts = append(parts, p.String())
	}
	for _, b := range g.blocks {
		parts = append(parts, b.String())
	}
	words := strings.Join(parts, "; ")
	if g.names == nil {
		return words
	}
	names := make([]string, 0, len(g.names))
	for _, n := range g.names {
		names = append(names, n.name+"/"+protocolName(n.proto))
	}
	return "ports " + strings.Join(names, ", ") + " of " + words
}

func (p peer) compare(q peer) int {
	return cmp.Or(cmp.Compare(p.scope.namespace, q.scope.namespace),
		cmp.Compare(p.scope.selector, q.scope.selector), cmp.Compare(p.pods.text, q.pods.text))
}

// String is "default: pods app=web", "namespaces team=a: all pods" or the like.
func (p peer) String() string {
	where, which := p.scope.namespace, "all pods"
	switch {
	case p.namespaces == nil:
	case p.namespaces.all():
		where = "all namespaces"
	default:
		where = "namespaces " + p.namespaces.text
	}
	if !p.pods.all() {
		which = "pods " + p.pods.text
	}
	return where + ": " + which
}

// String is "10.0.0.0/8 except 10.1.0.0/16, 10.2.0.0/16" or the like.
func (b block) String() string {
	if len(b.except) == 0 {
		return b.prefix.String()
	}
	texts := make([]string, 0, len(b.except))
	for _, e := range b.except {
		texts = append(texts, e.String())
	}
	return b.prefix.String() + " except " + strings.Join(texts, ", ")
}

// blocksOf returns the addresses of blocks: each without its own excepts, then all of them together.
func blocksOf(blocks []block) sets.Addrs {
	var all sets.Addrs
	for _, b := range blocks {
		var except []sets.AddrRange
		for _, e := range b.except {
			except = append(except, sets.PrefixRange(e))
		}
		all = all.Union(sets.NewAddrs(sets.PrefixRange(b.prefix)).Difference(sets.NewAddrs(except...)))
	}
	return all
}

// compilePeers reads a rule's peers. A peer with anything wrong in it is left out as a whole: half of what narrows it
// down would allow more than it says.
func compilePeers(namespace, field string, in []mnpv1.MultiNetworkPolicyPeer, ps *problems) (peers []peer, blocks []block) {
	for i, p := range in {
		at := fmt.Sprintf("%s[%d]", field, i)
		switch {
		case p.IPBlock == nil && p.PodSelector == nil && p.NamespaceSelector == nil:
			ps.add(at, "has no podSelector, namespaceSelector or ipBlock, so it allows nobody")
		case p.IPBlock != nil && (p.PodSelector != nil || p.NamespaceSelector != nil):
			ps.add(at, "has an ipBlock together with a selector, so it allows nobody")
		case p.IPBlock != nil:
			if b, ok := compileBlock(at+".ipBlock", p.IPBlock, ps); ok {
				blocks = append(blocks, b)
			}
		default:
			if q, ok := compileSelectors(namespace, at, p, ps); ok {
				peers = append(peers, q)
			}
		}
	}
	return peers, blocks
}

func compileSelectors(namespace, field string, in mnpv1.MultiNetworkPolicyPeer, ps *problems) (peer, bool) {
	out, ok := peer{scope: scopeKey{namespace: namespace}, pods: everything()}, true
	if in.PodSelector != nil {
		s, err := newSelector(in.PodSelector)
		if err != nil {
			ps.add(field+".podSelector", "cannot be understood, so the peer allows nobody: %v", err)
			ok = false
		}
		out.pods = s
	}
	if in.NamespaceSelector != nil {
		s, err := newSelector(in.NamespaceSelector)
		if err != nil {
			ps.add(field+".namespaceSelector", "cannot be understood, so the peer allows nobody: %v", err)
			return peer{}, false
		}
		out.namespaces, out.scope = s, scopeKey{selector: s.text}
	}
	return out, ok
}

// compileBlock reads an ipBlock. An except that cannot be read takes the block with it: what it was to keep out is not
// known. One that lies outside of the block keeps nothing out, and is only pointed out.
func compileBlock(field string, in *mnpv1.IPBlock, ps *problems) (block, bool) {
	prefix, err := parsePrefix(in.CIDR)
	ok := err == nil
	if !ok {
		ps.add(field+".cidr", "%q is not a CIDR, so the block allows nobody", in.CIDR)
	}
	out := block{prefix: prefix}
	for i, s := range in.Except {
		at := fmt.Sprintf("%s.except[%d]", field, i)
		except, err := parsePrefix(s)
		switch {
		case err != nil:
			ps.add(at, "%q is not a CIDR, so the block allows nobody", s)
			ok = false
		case !ok:
		case !prefix.Overlaps(except):
			ps.add(at, "%s is outside of %s, so it excludes nothing", except, prefix)
		case except.Bits() < prefix.Bits():
			ps.add(at, "%s is larger than %s, so the block allows nobody", except, prefix)
			ok = false
		default:
			out.except = append(out.except, except)
		}
	}
	slices.SortFunc(out.except, comparePrefixes)
	out.except = slices.Compact(out.except)
	return out, ok
}

// parsePrefix reads a CIDR. Host bits are legal and mean nothing; an IPv4 prefix written as an IPv6 one is the IPv4 one.
func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
