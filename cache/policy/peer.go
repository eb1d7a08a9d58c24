package policy

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Scope identifies the namespaces of a peer: a single namespace, or the namespaces that a selector selects. Exactly a
// single field is used; both empty is the selector that matches all namespaces.
// Equal scopes have the same namespaces at any time.
type Scope struct {
	Namespace string // empty: see Selector
	Selector  string // canonical text of the selector
}

// Peer selects the pods that a rule allows: the pods that Pods selects in the namespaces of the scope.
type Peer struct {
	Scope      Scope
	Namespaces *labelindex.Selector // selects the namespaces; nil: the namespace Scope.Namespace
	Pods       *labelindex.Selector // selects the pods in these namespaces; never nil
}

// everyPod returns the peer that selects all pods of all namespaces.
func everyPod() Peer {
	all := labelindex.Everything()
	return Peer{Scope: Scope{Selector: all.String()}, Namespaces: all, Pods: all}
}

// compare orders peers by the canonical texts of their selectors; 0 means that they select the same pods.
func (p Peer) compare(q Peer) int {
	return cmp.Or(cmp.Compare(p.Scope.Namespace, q.Scope.Namespace),
		cmp.Compare(p.Scope.Selector, q.Scope.Selector), cmp.Compare(p.Pods.String(), q.Pods.String()))
}

// String describes the peer for users: "default: pods app=web" or "namespaces team=a: all pods".
func (p Peer) String() string {
	where, which := p.Scope.Namespace, "all pods"
	switch {
	case p.Namespaces == nil:
	case p.Namespaces.MatchesAll():
		where = "all namespaces"
	default:
		where = "namespaces " + p.Namespaces.String()
	}
	if !p.Pods.MatchesAll() {
		which = "pods " + p.Pods.String()
	}
	return where + ": " + which
}

// Block is an ipBlock: the addresses of a prefix without the excepts.
// Its addresses never change.
type Block struct {
	Prefix netip.Prefix
	Except []netip.Prefix // sorted
	text   string         // canonical; equal for equal blocks
}

// newBlock returns a block. It sorts the excepts and takes ownership of them.
func newBlock(prefix netip.Prefix, except []netip.Prefix) Block {
	slices.SortFunc(except, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	b := Block{Prefix: prefix, Except: slices.Compact(except)}
	texts := make([]string, 0, len(b.Except))
	for _, e := range b.Except {
		texts = append(texts, e.String())
	}
	b.text = prefix.String()
	if len(texts) > 0 {
		b.text += " except " + strings.Join(texts, ", ")
	}
	return b
}

// String returns "10.0.0.0/8" or "10.0.0.0/8 except 10.1.0.0/16, 10.2.0.0/16".
func (b Block) String() string { return b.text }

// addrs returns the addresses of the block.
func (b Block) addrs() sets.Addrs {
	except := make([]sets.AddrRange, 0, len(b.Except))
	for _, e := range b.Except {
		except = append(except, sets.PrefixRange(e))
	}
	return sets.NewAddrs(sets.PrefixRange(b.Prefix)).Difference(sets.NewAddrs(except...))
}

// rawPeer is a peer of a rule with undecoded fields.
type rawPeer struct {
	PodSelector       json.RawMessage `json:"podSelector"`
	NamespaceSelector json.RawMessage `json:"namespaceSelector"`
	IPBlock           json.RawMessage `json:"ipBlock"`
}

// compilePeers reads the peers of a rule. It leaves out a peer with any invalid part: the valid conditions alone would allow more
// pods than all conditions together.
// field is the path of the list. Later peers than the first over the limit are not read.
func compilePeers(namespace, field string, list []json.RawMessage, u *usage, ps *Problems) (peers []Peer, blocks []Block) {
	for i, raw := range list {
		at := item(field, i)
		if !u.takePeer(at, ps) {
			break
		}
		var p rawPeer
		if err := decode(raw, &p); err != nil {
			ps.Add(at, "cannot be decoded, so it allows nobody: %s", clip(Words(err)))
			continue
		}
		isBlock, isPods := !isNull(p.IPBlock), !isNull(p.PodSelector) || !isNull(p.NamespaceSelector)
		switch {
		case !isBlock && !isPods:
			ps.Add(at, "has no podSelector, namespaceSelector or ipBlock, so it allows nobody")
		case isBlock && isPods:
			ps.Add(at, "has an ipBlock together with a selector, so it allows nobody")
		case isBlock:
			if b, ok := compileBlock(at+".ipBlock", p.IPBlock, u, ps); ok {
				blocks = append(blocks, b)
			}
		default:
			if q, ok := compilePods(namespace, at, p, u, ps); ok {
				peers = append(peers, q)
			}
		}
	}
	return peers, blocks
}

// compilePods reads a peer with selectors. Without a namespaceSelector, it selects pods of the policy's namespace.
// A missing podSelector selects all pods of the namespaces.
func compilePods(namespace, field string, p rawPeer, u *usage, ps *Problems) (Peer, bool) {
	const consequence = "the peer allows nobody"
	out := Peer{Scope: Scope{Namespace: namespace}}
	pods, ok := compileSelector(p.PodSelector, field+".podSelector", consequence, u, ps)
	out.Pods = pods
	if !isNull(p.NamespaceSelector) {
		namespaces, valid := compileSelector(p.NamespaceSelector, field+".namespaceSelector", consequence, u, ps)
		if !valid {
			return Peer{}, false
		}
		out.Namespaces, out.Scope = namespaces, Scope{Selector: namespaces.String()}
		u.clusterPeers++
	}
	return out, ok
}

// compileBlock reads an ipBlock. With an invalid except, the whole block allows nobody, since the addresses to exclude are
// unknown. An except outside of the block excludes nothing and is only reported.
func compileBlock(field string, raw json.RawMessage, u *usage, ps *Problems) (Block, bool) {
	var in mnpv1.IPBlock
	if err := decode(raw, &in); err != nil {
		ps.Add(field, "cannot be decoded, so the block allows nobody: %s", clip(Words(err)))
		return Block{}, false
	}
	if !u.takeBlocks(1+len(in.Except), field, ps) {
		return Block{}, false
	}
	prefix, err := parsePrefix(in.CIDR)
	ok := err == nil
	if !ok {
		ps.Add(field+".cidr", "%s is not a CIDR, so the block allows nobody", Quote(in.CIDR))
	}
	var excepts []netip.Prefix
	for i, s := range in.Except {
		at := item(field+".except", i)
		except, err := parsePrefix(s)
		switch {
		case err != nil:
			ps.Add(at, "%s is not a CIDR, so the block allows nobody", Quote(s))
			ok = false
		case !ok:
		case !prefix.Overlaps(except):
			ps.Add(at, "%s is outside of %s, so it excludes nothing", except, prefix)
		case except.Bits() < prefix.Bits():
			ps.Add(at, "%s is larger than %s, so the block allows nobody", except, prefix)
			ok = false
		default:
			excepts = append(excepts, except)
		}
	}
	return newBlock(prefix, excepts), ok
}

// parsePrefix reads a CIDR. It ignores host bits. A prefix within ::ffff:0:0/96 becomes the IPv4 prefix that it maps.
func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(strings.TrimSpace(s))
	if err != nil {
		return netip.Prefix{}, err
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}
