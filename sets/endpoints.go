package sets

import (
	"iter"
	"net/netip"
	"slices"
)

// Endpoint is a port of a protocol at an address. Sets take the address as
// [Single] takes it: unmapped, and without its zone.
type Endpoint struct {
	Addr  netip.Addr
	Proto uint8 // IP protocol number
	Port  uint16
}

// key returns the endpoint's family and its key in the tree of that family. The
// family is 0, and the key of no use, when the address is invalid.
func (e Endpoint) key() (Family, key) {
	a := e.Addr.Unmap()
	f := familyOf(a)
	if f == 0 {
		return 0, key{}
	}
	return f, key{addr: number(a), sub: uint32(e.Proto)<<16 | uint32(e.Port)}
}

// Less reports whether e comes before f in [Endpoints.All]. Both must be of one
// family.
func (e Endpoint) Less(f Endpoint) bool {
	_, k := e.key()
	_, l := f.key()
	return k.compare(l) < 0
}

// endpointOf returns the endpoint of family f that an element is.
func endpointOf(n *node[struct{}], f Family) Endpoint {
	return Endpoint{n.key.addr.addr(f), uint8(n.key.sub >> 16), uint16(n.key.sub)}
}

// Endpoints is an immutable set of endpoints of both families. The zero value is
// the empty set.
//
// Values may be compared with ==: true means that they are equal. False means
// only that they were not derived one from the other; [Endpoints.Equal] tells.
type Endpoints struct{ v4, v6 *node[struct{}] }

// NewEndpoints returns the set of the endpoints, which may come in any order and
// repeat, in O(n log n). One with an invalid address is left out.
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

// Insert returns the set with the endpoint added, in O(log n): s itself when it
// is there already, or its address is invalid.
func (s Endpoints) Insert(e Endpoint) Endpoints {
	switch f, k := e.key(); f {
	case V4:
		s.v4 = s.v4.put(k, struct{}{})
	case V6:
		s.v6 = s.v6.put(k, struct{}{})
	}
	return s
}

// Remove returns the set without the endpoint, in O(log n): s itself when it is
// not there.
func (s Endpoints) Remove(e Endpoint) Endpoints {
	switch f, k := e.key(); f {
	case V4:
		s.v4 = s.v4.cut(k, k)
	case V6:
		s.v6 = s.v6.cut(k, k)
	}
	return s
}

// Splice returns the endpoints of s before at and the endpoints of t from at on,
// in the family of at; of the other family it holds what s holds. It costs
// O(log n). The address of at must be valid.
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

// IsEmpty reports whether there is no endpoint in the set.
func (s Endpoints) IsEmpty() bool { return s == Endpoints{} }

// Len returns the number of endpoints of a family, in O(1).
func (s Endpoints) Len(f Family) int { return s.root(f).count() }

// Equal reports whether s and t hold the same endpoints. Parts that they share
// cost nothing.
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

// root returns the tree of a family, which is empty for no family.
func (s Endpoints) root(f Family) *node[struct{}] {
	switch f {
	case V4:
		return s.v4
	case V6:
		return s.v6
	}
	return nil
}
