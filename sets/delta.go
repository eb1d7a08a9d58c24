package sets

// Delta is what turns one version of a set into another: take Del from it, then
// add Add. Both are ascending, and no element is in both. Elements are whole:
// a range that grew is its old form in Del and its new form in Add.
type Delta[T any] struct{ Del, Add []T }

// IsEmpty reports whether there is nothing to do.
func (d Delta[T]) IsEmpty() bool { return len(d.Del) == 0 && len(d.Add) == 0 }

// DiffAddrs returns what turns have into want in family f, in terms of whole
// ranges, which are the elements of a kernel set.
//
// When one was derived from the other the cost is O(changed * log n): what they
// share is passed over. In general it is O(n).
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

// DiffPorts returns what turns have into want, in terms of whole ranges.
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

// DiffEndpoints returns what turns have into want in family f. It costs what
// [DiffAddrs] costs.
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
