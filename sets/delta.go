package sets

import (
	"net/netip"
)

// Delta is the difference between two versions of a set: delete Del from the old
// version, then add Add. Both lists are ascending, and no element is in both.
//
// An element is a whole range or endpoint, as in a kernel set. A range that grew
// is in Del with its old ends and in Add with its new ends.
type Delta[T any] struct{ Del, Add []T }

// IsEmpty reports whether the two versions are equal.
func (d Delta[T]) IsEmpty() bool { return len(d.Del) == 0 && len(d.Add) == 0 }

// Len returns the number of elements to delete and to add.
func (d Delta[T]) Len() int { return len(d.Del) + len(d.Add) }

// DiffAddrs returns the ranges to delete from have and to add to it, so that it
// equals want in family f.
//
// It skips subtrees that have and want share. So the cost is O(changed * log n)
// when one set was derived from the other, and O(n) in general.
func DiffAddrs(have, want Addrs, f Family) Delta[AddrRange] {
	var d Delta[AddrRange]
	diff(have.root(f), want.root(f), nil, nil, func(h, w *node[uint128]) {
		if h != nil {
			d.Del = append(d.Del, spanOf(h).addrRange(f))
		}
		if w != nil {
			d.Add = append(d.Add, spanOf(w).addrRange(f))
		}
	})
	return d
}

// DiffHosts returns the single addresses to delete from have and to add to it, so that it equals want in family f. It
// costs as much as [DiffAddrs], and as many steps as there are addresses in the difference. These must be few.
func DiffHosts(have, want Addrs, f Family) Delta[netip.Addr] {
	ranges := DiffAddrs(have, want, f)
	return Delta[netip.Addr]{Del: hostsWithout(ranges.Del, ranges.Add), Add: hostsWithout(ranges.Add, ranges.Del)}
}

// hostsWithout returns the addresses that are in one list and not in another. Each list is in ascending order, and its ranges do not
// overlap.
func hostsWithout(list, other []AddrRange) []netip.Addr {
	if len(list) == 0 {
		return nil
	}
	hosts := make([]netip.Addr, 0, len(list))
	for _, r := range list {
		for a := r.From; a.IsValid() && !r.To.Less(a); a = a.Next() {
			for len(other) > 0 && other[0].To.Less(a) {
				other = other[1:]
			}
			if len(other) > 0 && !a.Less(other[0].From) {
				a = other[0].To
				continue
			}
			hosts = append(hosts, a)
		}
	}
	return hosts
}

// DiffPorts returns the ranges to delete from have and to add to it, so that it
// equals want. It costs O(n).
func DiffPorts(have, want Ports) Delta[PortRange] {
	var d Delta[PortRange]
	h, w := have.ranges, want.ranges
	for len(h) > 0 && len(w) > 0 {
		c := h[0].compare(w[0])
		if c < 0 {
			d.Del = append(d.Del, h[0])
		}
		if c > 0 {
			d.Add = append(d.Add, w[0])
		}
		if c <= 0 {
			h = h[1:]
		}
		if c >= 0 {
			w = w[1:]
		}
	}
	d.Del = append(d.Del, h...)
	d.Add = append(d.Add, w...)
	return d
}

// DiffEndpoints returns the endpoints to delete from have and to add to it, so
// that it equals want in family f. It costs as much as [DiffAddrs].
func DiffEndpoints(have, want Endpoints, f Family) Delta[Endpoint] {
	var d Delta[Endpoint]
	diff(have.root(f), want.root(f), nil, nil, func(h, w *node[struct{}]) {
		if h != nil {
			d.Del = append(d.Del, endpointOf(h, f))
		}
		if w != nil {
			d.Add = append(d.Add, endpointOf(w, f))
		}
	})
	return d
}
