package sets

import (
	"iter"
	"net/netip"
	"slices"
)

// Endpoint is an address, a protocol and a port: an element of a set of type
// `ipv4_addr . inet_proto . inet_service`. Sets treat the address as [Single]
// does: they unmap a 4in6 address and ignore a zone.
type Endpoint struct {
	Addr  netip.Addr
	Proto uint8 // IP protocol number
	Port  uint16
}

// key returns the endpoint's family and its key in the tree of that family. If
// the address is invalid, both are zero.
func (e Endpoint) key() (Family, key) {
	a := e.Addr.Unmap()
	f := familyOf(a)
	if f == 0 {
		return 0, key{}
	}
	return f, key{addr: number(a), sub: uint32(e.Proto)<<16 | uint32(e.Port)}
}

// Less reports whether e comes before f in [Endpoints.All]. Both must be of the
// same family.
func (e Endpoint) Less(f Endpoint) bool {
	_, k := e.key()
	_, l := f.key()
	return k.compare(l) < 0
}

// endpointOf returns the endpoint that a node of the tree of family f holds.
func endpointOf(n *node[struct{}], f Family) Endpoint {
	return Endpoint{n.key.addr.addr(f), uint8(n.key.sub >> 16), uint16(n.key.sub)}
}

// Endpoints is an immutable set of endpoints of both families. The zero value is
// the empty set.
//
// The operator == compares roots, in O(1): true means that the sets are equal.
// False decides nothing, because equal sets may have been built separately; use
// [Endpoints.Equal].
type Endpoints struct{ v4, v6 *node[struct{}] }

// NewEndpoints returns the set of the endpoints, which may come in any order and
// repeat, in O(n log n). Endpoints with an invalid address are left out.
func NewEndpoints(es ...Endpoint) Endpoints {
	var v4, v6 []key
	for _, e := range es {
		switch f, k := e.key(); f {
		case V4:
			v4 = append(v4, k)
		case V6:
			v6 = append(v6, k)
		}
	}
	return Endpoints{treeOfKeys(v4), treeOfKeys(v6)}
}

// treeOfKeys returns the tree of the keys, which it sorts.
func treeOfKeys(keys []key) *node[struct{}] {
	slices.SortFunc(keys, key.compare)
	var b builder[struct{}]
	for _, k := range slices.Compact(keys) {
		b.add(k, struct{}{})
	}
	return b.tree()
}

// Insert returns the set with the endpoint added, in O(log n). It returns s
// itself when s already holds the endpoint, or when its address is invalid.
func (s Endpoints) Insert(e Endpoint) Endpoints {
	switch f, k := e.key(); f {
	case V4:
		s.v4 = s.v4.put(k, struct{}{})
	case V6:
		s.v6 = s.v6.put(k, struct{}{})
	}
	return s
}

// Remove returns the set without the endpoint, in O(log n). It returns s itself
// when s does not hold the endpoint.
func (s Endpoints) Remove(e Endpoint) Endpoints {
	switch f, k := e.key(); f {
	case V4:
		s.v4 = s.v4.cut(k, k)
	case V6:
		s.v6 = s.v6.cut(k, k)
	}
	return s
}

// Splice returns the endpoints of s before at, and the endpoints of t from at
// on, in the family of at. The other family is that of s. It costs O(log n). The
// address of at must be valid.
func (s Endpoints) Splice(t Endpoints, at Endpoint) Endpoints {
	f, k := at.key()
	if f == V4 {
		s.v4 = spliceKeys(s.v4, t.v4, k)
	} else {
		s.v6 = spliceKeys(s.v6, t.v6, k)
	}
	return s
}

func spliceKeys(a, b *node[struct{}], at key) *node[struct{}] {
	spliced := join(a.before(at), b.after(at))
	if n := b.floor(at); n != nil && n.key == at {
		spliced = spliced.put(at, struct{}{})
	}
	return spliced
}

// Contains reports whether the endpoint is in the set.
func (s Endpoints) Contains(e Endpoint) bool {
	f, k := e.key()
	n := s.root(f).floor(k)
	return n != nil && n.key == k
}

// IsEmpty reports whether the set has no endpoint.
func (s Endpoints) IsEmpty() bool { return s == Endpoints{} }

// Len returns the number of endpoints of a family, in O(1).
func (s Endpoints) Len(f Family) int { return s.root(f).count() }

// Equal reports whether s and t hold the same endpoints. It skips subtrees that
// s and t share.
func (s Endpoints) Equal(t Endpoints) bool { return s.v4.equal(t.v4) && s.v6.equal(t.v6) }

// All returns the endpoints of a family, ascending by address, protocol and
// port.
func (s Endpoints) All(f Family) iter.Seq[Endpoint] {
	return func(yield func(Endpoint) bool) {
		s.root(f).each(func(n *node[struct{}]) bool {
			return yield(endpointOf(n, f))
		})
	}
}

// root returns the tree of a family. It is empty for an invalid family.
func (s Endpoints) root(f Family) *node[struct{}] {
	switch f {
	case V4:
		return s.v4
	case V6:
		return s.v6
	}
	return nil
}
