package engine

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// delta is the difference between two versions of a set: elements to delete, and elements to add. Only the field for the
// kind of the set is used.
type delta struct {
	from      uint64 // the number of the version that it starts from
	ranges    sets.Delta[sets.AddrRange]
	hosts     sets.Delta[netip.Addr]
	endpoints sets.Delta[sets.Endpoint]

	encoding sync.Once
	encoded  batch // its messages, if it has many elements: only their sequence numbers depend on the pod
}

func (d *delta) isEmpty() bool { return d.len() == 0 }

func (d *delta) len() int { return d.ranges.Len() + d.hosts.Len() + d.endpoints.Len() }

// memory belongs to a version of a set, and serves all pods that have the set. They share its versions, and most of them
// step from the same version to the next: the first pod finds the difference and encodes it, and the others use it again. It
// is freed with the version, and does not count when sets are compared.
type memory struct {
	number atomic.Uint64 // tells versions apart without keeping the older ones; 0: nobody has asked
	last   atomic.Pointer[delta]
}

// A set remembers a delta of up to longestKept elements, or of an eighth of its own (keptPart).
const (
	longestKept = 64
	keptPart    = 8
)

var versions atomic.Uint64

func (m *memory) version() uint64 {
	if n := m.number.Load(); n != 0 {
		return n
	}
	m.number.CompareAndSwap(0, versions.Add(1))
	return m.number.Load()
}

// since returns the difference from have to s. It returns false if the set must be made anew.
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

// find returns false if the change cannot be made in place.
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

// manyElements is from when on the messages of a delta are kept: fewer are encoded in the time that it takes to look.
const manyElements = 16

// changeElements writes the delta, in messages that were encoded before if there are many elements.
func (b *batch) changeElements(c *elementChange) {
	if c.len() < manyElements {
		b.encodeDelta(c.set.Name, c.delta)
		return
	}
	c.encoding.Do(func() { c.encoded.encodeDelta(c.set.Name, c.delta) })
	b.Append(&c.encoded.Messages)
}

// encodeDelta deletes before it adds: a range that is widened, split or merged then overlaps nothing.
func (b *batch) encodeDelta(set string, d *delta) {
	remove, add := b.list(unix.NFT_MSG_DELSETELEM, "DELSETELEM", set), b.list(unix.NFT_MSG_NEWSETELEM, "NEWSETELEM", set)
	writeDelta(remove, add, d.ranges, (*elementList).addrRange)
	writeDelta(remove, add, d.hosts, (*elementList).host)
	writeDelta(remove, add, d.endpoints, (*elementList).endpoint)
}

func writeDelta[T any](remove, add elementList, d sets.Delta[T], write func(*elementList, T)) {
	if d.IsEmpty() {
		return
	}
	writeElements(remove, d.Del, write)
	writeElements(add, d.Add, write)
}
