package sets

import (
	"iter"
	"net/netip"
	"slices"
)

// Addrs is an immutable set of addresses of both families, held as ranges that
// neither overlap nor touch. The zero value is the empty set.
//
// The operator == compares roots, in O(1): true means that the sets are equal.
// False decides nothing, because equal sets may have been built separately; use
// [Addrs.Equal].
type Addrs struct{ v4, v6 *node[uint128] }

// NewAddrs returns the set of all addresses in the ranges, which may come in any
// order and overlap, in O(n log n). A range that is not valid adds nothing.
func NewAddrs(rs ...AddrRange) Addrs {
	var v4, v6 []span
	for _, r := range rs {
		switch {
		case !r.IsValid():
		case r.From.Is4():
			v4 = append(v4, r.span())
		default:
			v6 = append(v6, r.span())
		}
	}
	return Addrs{treeOf(v4), treeOf(v6)}
}

// treeOf returns the tree of the addresses in the spans, which it sorts.
func treeOf(spans []span) *node[uint128] {
	slices.SortFunc(spans, func(a, b span) int { return a.from.compare(b.from) })
	var m merger
	for _, s := range spans {
		m.add(s)
	}
	return m.tree()
}

// Insert returns the set with the range added. It returns s itself when s
// already holds the whole range, or when the range is not valid. It costs
// O(log n), regardless of the number of ranges that it merges.
func (s Addrs) Insert(r AddrRange) Addrs {
	if !r.IsValid() {
		return s
	}
	if r.From.Is4() {
		s.v4 = insert(s.v4, r.span())
	} else {
		s.v6 = insert(s.v6, r.span())
	}
	return s
}

// Remove returns the set without the range. It returns s itself when s holds no
// address of the range, or when the range is not valid. It costs O(log n),
// regardless of the number of ranges that it removes.
func (s Addrs) Remove(r AddrRange) Addrs {
	if !r.IsValid() {
		return s
	}
	if r.From.Is4() {
		s.v4 = remove(s.v4, r.span())
	} else {
		s.v6 = remove(s.v6, r.span())
	}
	return s
}

// Union returns the set of the addresses in s or in t. It returns s itself when
// t adds nothing. If the smaller set has m ranges and the larger has many more,
// n, the cost is O(m log n) and the result shares nodes with the larger set.
// Otherwise the cost is O(n + m).
func (s Addrs) Union(t Addrs) Addrs {
	return Addrs{union(s.v4, t.v4), union(s.v6, t.v6)}
}

// Difference returns the set of the addresses in s and not in t. It returns s
// itself when the two sets have no common address. If t has m ranges and s has
// many more, n, the cost is O(m log n) and the result shares nodes with s.
// Otherwise the cost is O(n + m).
func (s Addrs) Difference(t Addrs) Addrs {
	return Addrs{difference(s.v4, t.v4), difference(s.v6, t.v6)}
}

// Splice returns the addresses of s before at, and the addresses of t from at
// on, in the family of at. The other family is that of s. It costs O(log n). at
// must be valid. The engine splices two versions into an intermediate version when
// the change is too large for a single batch.
func (s Addrs) Splice(t Addrs, at netip.Addr) Addrs {
	if at.Is4() {
		s.v4 = splice(s.v4, t.v4, number(at))
	} else {
		s.v6 = splice(s.v6, t.v6, number(at))
	}
	return s
}

// Contains reports whether the address is in the set. As in [Single], a 4in6
// address is unmapped and a zone is ignored. An invalid address is in no set.
func (s Addrs) Contains(a netip.Addr) bool {
	if !a.IsValid() {
		return false
	}
	a = a.Unmap()
	n := number(a)
	e := s.root(familyOf(a)).floor(key{addr: n})
	return e != nil && !e.val.less(n)
}

// IsEmpty reports whether the set has no address.
func (s Addrs) IsEmpty() bool { return s == Addrs{} }

// Len returns the number of ranges (not of addresses) of a family, in O(1).
func (s Addrs) Len(f Family) int { return s.root(f).count() }

// Equal reports whether s and t hold the same addresses. It skips subtrees that
// s and t share.
func (s Addrs) Equal(t Addrs) bool { return s.v4.equal(t.v4) && s.v6.equal(t.v6) }

// Ranges returns the ranges of a family in ascending order. They do not overlap
// and do not touch.
func (s Addrs) Ranges(f Family) iter.Seq[AddrRange] {
	return func(yield func(AddrRange) bool) {
		s.root(f).each(func(n *node[uint128]) bool {
			return yield(spanOf(n).addrRange(f))
		})
	}
}

// Hosts returns the single addresses of a family in ascending order. A caller must know that they are few: a range of a
// prefix length of 8 has 16 million.
func (s Addrs) Hosts(f Family) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for r := range s.Ranges(f) {
			for a := r.From; ; a = a.Next() {
				if !yield(a) {
					return
				}
				if a == r.To {
					break
				}
			}
		}
	}
}

// root returns the tree of a family. It is empty for an invalid family.
func (s Addrs) root(f Family) *node[uint128] {
	switch f {
	case V4:
		return s.v4
	case V6:
		return s.v6
	}
	return nil
}
