package engine

import (
	"net/netip"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// like returns a version of the set with other elements. It remembers no difference, so the next comparison finds it.
func (s *Set) like(e Elements) *Set { return &Set{Name: s.Name, Comment: s.Comment, Elements: e} }

// empty returns the version of the set without elements.
func (s *Set) empty() *Set {
	switch e := s.Elements.(type) {
	case Addrs:
		return s.like(Addrs{Family: e.Family})
	case Hosts:
		return s.like(Hosts{Family: e.Family})
	case Endpoints:
		return s.like(Endpoints{Family: e.Family})
	case Numbers:
		return s.like(Numbers{Type: e.Type})
	case Served:
		return s
	}
	return s.like(Ports{})
}

// with returns the version of the set that has the elements of both versions. For kinds whose elements never change it
// returns the other version.
func (s *Set) with(other *Set) *Set {
	switch e := s.Elements.(type) {
	case Addrs:
		if o, ok := other.Elements.(Addrs); ok {
			e.Addrs = e.Addrs.Union(o.Addrs)
			return s.like(e)
		}
	case Hosts:
		if o, ok := other.Elements.(Hosts); ok {
			return s.like(NewHosts(e.Family, e.Addrs.Union(o.Addrs)))
		}
	case Endpoints:
		if o, ok := other.Elements.(Endpoints); ok {
			for _, added := range sets.DiffEndpoints(e.Endpoints, o.Endpoints, e.Family).Add {
				e.Endpoints = e.Endpoints.Insert(added)
			}
			return s.like(e)
		}
	}
	return other
}

// plus returns the version of a set of addresses that also holds others. None of them is in the set.
func (s *Set) plus(others sets.Addrs) *Set {
	switch e := s.Elements.(type) {
	case Addrs:
		e.Addrs = e.Addrs.Union(others)
		return s.like(e)
	case Hosts:
		more := NewHosts(e.Family, others)
		return s.like(Hosts{Family: e.Family, Addrs: e.Addrs.Union(others), Count: e.Count + more.Count})
	}
	return s
}

// toward returns an intermediate version on the way from the set to its target, and the number of elements in which it
// differs from the set, at most most. The intermediate version equals the target up to some element, and the set beyond
// that element:
//
//	set      a     c  d     f
//	target   a  b     d  e
//	most 2   a  b     d     f        b was added, c deleted; e and f are left for the next step
//
// It is the target itself if no more than most elements differ, and for kinds that cannot change in part.
func (s *Set) toward(target *Set, most int) (part *Set, changes int) {
	switch e := s.Elements.(type) {
	case Addrs:
		if o, ok := target.Elements.(Addrs); ok {
			d := sets.DiffAddrs(e.Addrs, o.Addrs, e.Family)
			if d.Len() <= most {
				return target, d.Len()
			}
			at := nth(d, most, func(a, b sets.AddrRange) bool { return a.From.Less(b.From) })
			e.Addrs = o.Addrs.Splice(e.Addrs, at.From)
			return s.like(e), most
		}
	case Hosts:
		if o, ok := target.Elements.(Hosts); ok {
			d := sets.DiffHosts(e.Addrs, o.Addrs, e.Family)
			if d.Len() <= most {
				return target, d.Len()
			}
			at := nth(d, most, netip.Addr.Less)
			return s.like(NewHosts(e.Family, o.Addrs.Splice(e.Addrs, at))), most
		}
	case Endpoints:
		if o, ok := target.Elements.(Endpoints); ok {
			d := sets.DiffEndpoints(e.Endpoints, o.Endpoints, e.Family)
			if d.Len() <= most {
				return target, d.Len()
			}
			at := nth(d, most, sets.Endpoint.Less)
			e.Endpoints = o.Endpoints.Splice(e.Endpoints, at)
			return s.like(e), most
		}
	}
	return target, size(target.Elements)
}

// nth returns element n, counted from 0, of both lists of a difference taken together in ascending order.
func nth[T any](d sets.Delta[T], n int, less func(a, b T) bool) T {
	for {
		first := &d.Del
		if len(d.Del) == 0 || len(d.Add) > 0 && less(d.Add[0], d.Del[0]) {
			first = &d.Add
		}
		if n == 0 {
			return (*first)[0]
		}
		*first = (*first)[1:]
		n--
	}
}
