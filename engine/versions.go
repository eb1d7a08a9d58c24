package engine

import (
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// like returns a version of the set with other elements.
func (s *Set) like(e Elements) *Set { return &Set{Name: s.Name, Comment: s.Comment, Elements: e} }

// empty returns the version of the set without elements.
func (s *Set) empty() *Set {
	switch e := s.Elements.(type) {
	case Addrs:
		return s.like(Addrs{Family: e.Family})
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

// toward returns an intermediate version on the way from the set to its target, and the number of elements that change
// from the set to it, at most most. The intermediate version equals the target up to some element, and the set beyond that
// element. It is the target itself if no more than most elements differ, and for kinds that cannot change in part.
func (s *Set) toward(target *Set, most int) (part *Set, changes int) {
	switch e := s.Elements.(type) {
	case Addrs:
		o, ok := target.Elements.(Addrs)
		if !ok {
			break
		}
		d := sets.DiffAddrs(e.Addrs, o.Addrs, e.Family)
		if len(d.Del)+len(d.Add) <= most {
			return target, len(d.Del) + len(d.Add)
		}
		at := nth(d.Del, d.Add, most, func(a, b sets.AddrRange) bool { return a.From.Less(b.From) })
		e.Addrs = o.Addrs.Splice(e.Addrs, at.From)
		return s.like(e), most
	case Endpoints:
		o, ok := target.Elements.(Endpoints)
		if !ok {
			break
		}
		d := sets.DiffEndpoints(e.Endpoints, o.Endpoints, e.Family)
		if len(d.Del)+len(d.Add) <= most {
			return target, len(d.Del) + len(d.Add)
		}
		at := nth(d.Del, d.Add, most, sets.Endpoint.Less)
		e.Endpoints = o.Endpoints.Splice(e.Endpoints, at)
		return s.like(e), most
	}
	return target, size(target.Elements)
}

// nth returns element n, counted from 0, of two ascending lists taken together.
func nth[T any](a, b []T, n int, less func(a, b T) bool) T {
	for {
		first := &a
		if len(a) == 0 || len(b) > 0 && less(b[0], a[0]) {
			first = &b
		}
		if n == 0 {
			return (*first)[0]
		}
		*first = (*first)[1:]
		n--
	}
}
