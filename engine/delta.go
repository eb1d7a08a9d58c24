package engine

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// delta is the difference between two versions of a set: elements to delete, and elements to add. Only the field for
// the kind of the set is used: sets of ports and numbers never change in place. Pods share a delta, so nothing but its
// encoding changes after find.
type delta struct {
	from      uint64 // number of the version that it starts from, see memory
	ranges    sets.Delta[sets.AddrRange]
	hosts     sets.Delta[netip.Addr]
	endpoints sets.Delta[sets.Endpoint]

	encoding sync.Once
	encoded  batch // its messages, if it has many elements: only their sequence numbers depend on the pod
}

// isEmpty reports whether both versions have the same elements.
func (d *delta) isEmpty() bool { return d.len() == 0 }

// len returns the number of elements to delete and to add.
func (d *delta) len() int { return d.ranges.Len() + d.hosts.Len() + d.endpoints.Len() }

// addrs returns the addresses of the elements to delete and to add. Those of endpoints are left out.
func (d *delta) addrs() (del, add sets.Addrs) {
	set := func(ranges []sets.AddrRange, hosts []netip.Addr) sets.Addrs {
		list := slices.Clone(ranges)
		for _, a := range hosts {
			list = append(list, sets.Single(a))
		}
		return sets.NewAddrs(list...)
	}
	return set(d.ranges.Del, d.hosts.Del), set(d.ranges.Add, d.hosts.Add)
}

// memory belongs to a version of a set, and serves all pods that have the set. They share its versions, and most of them
// step from the same version to the next: the first pod finds the difference and encodes it, and the others use it again. It
// is freed with the version, and does not count when sets are compared.
type memory struct {
	number atomic.Uint64         // tells versions apart without a reference to older versions; 0: not asked for yet
	last   atomic.Pointer[delta] // from the version that the last caller came from
}

// A set remembers a delta of up to longestKept elements, or of up to an eighth of its own size (keptPart).
const (
	longestKept = 64
	keptPart    = 8
)

// versions is the number that was given to a version last.
var versions atomic.Uint64

// version returns the number of this version of the set, which it gets at the first call.
func (m *memory) version() uint64 {
	if n := m.number.Load(); n != 0 {
		return n
	}
	m.number.CompareAndSwap(0, versions.Add(1))
	return m.number.Load()
}

// since returns the difference from have to s. It returns false if the set must be made anew: nf_tables cannot change
// the comment or the kind of a set.
func (s *Set) since(have *Set) (*delta, bool) {
	if have.Comment != s.Comment {
		return nil, false
	}
	from := have.version()
	if d := s.last.Load(); d != nil && d.from == from {
		return d, true
	}
	d := &delta{from: from}
	if !d.find(have.Elements, s.Elements) {
		return nil, false
	}
	// An empty delta is between equal values, as a read-back makes them: nobody else will ask. A delta that is as long as the
	// set would double the memory of the set for as long as the set stays.
	if n := d.len(); n > 0 && n <= max(longestKept, size(s.Elements)/keptPart) {
		s.last.Store(d)
	}
	return d, true
}

// find sets the fields of the delta. It returns false if the change cannot be made in place.
// A set that changes its kind or its family must be made anew.
func (d *delta) find(have, want Elements) bool {
	switch w := want.(type) {
	case Addrs:
		h, same := have.(Addrs)
		if !same || h.Family != w.Family {
			return false
		}
		d.ranges = sets.DiffAddrs(h.Addrs, w.Addrs, w.Family)
	case Hosts:
		h, same := have.(Hosts)
		if !same || h.Family != w.Family {
			return false
		}
		d.hosts = sets.DiffHosts(h.Addrs, w.Addrs, w.Family)
	case Endpoints:
		h, same := have.(Endpoints)
		if !same || h.Family != w.Family {
			return false
		}
		d.endpoints = sets.DiffEndpoints(h.Endpoints, w.Endpoints, w.Family)
	case Ports:
		h, same := have.(Ports)
		return same && h.Ports.Equal(w.Ports)
	case Numbers:
		h, same := have.(Numbers)
		return same && h.Type == w.Type && h.Numbers.Equal(w.Numbers)
	case Served:
		return have == want
	}
	return true
}
