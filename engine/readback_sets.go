//go:build linux

package engine

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// kinds has an empty Elements of every kind of set that a Ruleset can have. It is made once, because each set that is
// read is compared with all of them.
var kinds = allKinds()

// allKinds makes kinds.
func allKinds() []Elements {
	list := []Elements{Served{}, Ports{}, Ports{sets.NewPorts(sets.PortRange{To: sets.MaxPort})}} // of single ports, and with ranges
	for _, f := range sets.Families {
		list = append(list, Addrs{Family: f}, Hosts{Family: f}, Endpoints{Family: f})
	}
	for _, d := range expr.Datatypes {
		list = append(list, Numbers{Type: d})
	}
	return list
}

// readSets reads the sets: first all of them without elements, since a dump allows no other question meanwhile.
func (r *reader) readSets() error {
	err := r.dumpSets(func(a nfnl.Attrs) error {
		kind, err := kindOf(a)
		if err != nil {
			return err
		}
		// A table with more sets than any ruleset of the pod is not the agent's, and must not take the agent's memory.
		if len(r.sets) == r.most.objects {
			return errForeign
		}
		r.sets = append(r.sets, &Set{
			Name:     a.Text(unix.NFTA_SET_NAME),
			Comment:  nfnl.UserData(a[unix.NFTA_SET_USERDATA], userdata.NFTNL_UDATA_SET_COMMENT),
			Elements: kind,
		})
		return nil
	})
	if err != nil {
		return err
	}
	for _, s := range r.sets {
		if err := r.readElements(s); err != nil {
			return err
		}
		// A comment that was cut on its way counts as the wanted comment.
		if w := r.wanted(s.Name); w != nil && commentText(w.Comment) == s.Comment {
			s.Comment = w.Comment
		}
	}
	return nil
}

// kindOf returns the kind of a set, or errForeign. It recognizes a kind by its layout.
func kindOf(a nfnl.Attrs) (Elements, error) {
	// A map, a set of stateful objects, or a set with expressions.
	for _, other := range []uint16{unix.NFTA_SET_DATA_TYPE, unix.NFTA_SET_OBJ_TYPE, setExpr, setExpressions} {
		if _, ok := a[other]; ok {
			return nil, errForeign
		}
	}
	fields, err := fieldsOf(a[unix.NFTA_SET_DESC])
	if err != nil {
		return nil, err
	}
	for _, kind := range kinds {
		l := layoutOf(kind)
		if a.Uint32(unix.NFTA_SET_FLAGS) == l.flags && a.Uint32(unix.NFTA_SET_KEY_TYPE) == l.keyType &&
			a.Uint32(unix.NFTA_SET_KEY_LEN) == l.keyLen && a.Uint64(unix.NFTA_SET_TIMEOUT) == uint64(l.timeout.Milliseconds()) && slices.Equal(fields, l.fields) {
			return kind, nil
		}
	}
	return nil, errForeign
}

// fieldsOf returns the lengths of the fields of a concatenation with ranges, from the description of a set.
func fieldsOf(desc []byte) (fields []uint32, err error) {
	d, err := nfnl.ParseAttrs(desc)
	if err != nil {
		return nil, err
	}
	err = nfnl.EachAttr(d[setDescConcat], func(_ uint16, field []byte) {
		if f, e := nfnl.ParseAttrs(field); e == nil {
			fields = append(fields, f.Uint32(setFieldLen))
		}
	})
	return fields, err
}

// elementCount returns the number of elements that the kernel has for a set: an interval set has an element for each end of
// a range.
func elementCount(e Elements) int {
	if layoutOf(e).flags == unix.NFT_SET_INTERVAL {
		return 2 * size(e)
	}
	return size(e)
}

// element is an element of a set as the kernel has it.
type element struct {
	key, keyEnd []byte
	isEnd       bool // INTERVAL_END
}

// dumpTries is the number of times that a hash set is dumped before a dump with repeated elements is taken as it is.
const dumpTries = 5

// readElements reads the content of a set. A dump of a hash set repeats some elements and lacks others if the kernel resizes
// the set meanwhile, which it does a moment after the set has grown or shrunk. So such a dump is made again.
func (r *reader) readElements(s *Set) error {
	if isServed(s.Elements) {
		return nil // its content is no part of a Ruleset
	}
	// Each likely ruleset may have another version of the set.
	var likely []Elements
	for _, rs := range r.likely {
		if l := rs.set(s.Name); l != nil {
			likely = append(likely, l.Elements)
		}
	}
	most := r.most.elements
	for try := 1; ; try++ {
		// Every try starts with the same budget of elements.
		r.most.elements = most
		if err := r.dumpElements(s.Name); err != nil {
			return err
		}
		content := elementsOf(s.Elements, r.elements, likely...)
		if content == nil {
			return errForeign
		}
		// Repeated elements make the content smaller than the list.
		if elementCount(content) >= len(r.elements) || try == dumpTries {
			s.Elements = content
			return nil
		}
	}
}

// dumpElements reads the elements of a set as the kernel has them.
func (r *reader) dumpElements(set string) error {
	r.elements = r.elements[:0]
	r.keys.reset()
	r.askElements(set)
	return r.ask(r.transport, unix.NFT_MSG_NEWSETELEM, func(a nfnl.Attrs) error {
		var bad error
		err := nfnl.EachAttr(a[unix.NFTA_SET_ELEM_LIST_ELEMENTS], func(_ uint16, b []byte) {
			if r.most.elements--; r.most.elements < 0 {
				bad = errForeign
				return
			}
			e, err := parseElement(b)
			if err != nil {
				bad = err
			}
			e.key, e.keyEnd = r.keys.keep(e.key), r.keys.keep(e.keyEnd) // the receive buffer is used again for the next datagram
			r.elements = append(r.elements, e)
		})
		if err != nil {
			return err
		}
		return bad
	})
}

// askElements writes the question for the elements of a set.
func (x *exchange) askElements(set string) {
	x.batch.reset()
	x.batch.begin(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, nfnl.Label{Op: "GETSETELEM", Object: set})
	x.batch.Text(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
	x.batch.Text(unix.NFTA_SET_ELEM_LIST_SET, set)
	x.batch.End()
}

// arena keeps many short byte strings in few allocations. The strings are valid until reset.
type arena struct{ free []byte }

// reset frees all strings. The memory is used again.
func (a *arena) reset() { a.free = a.free[:0] }

// keep returns a copy of the bytes. A nil stays nil: the key of an end is told from an empty key.
func (a *arena) keep(b []byte) []byte {
	if b == nil {
		return nil
	}
	if cap(a.free)-len(a.free) < len(b) {
		a.free = make([]byte, 0, max(16<<10, len(b)))
	}
	start := len(a.free)
	a.free = append(a.free, b...)
	return a.free[start:len(a.free):len(a.free)]
}

// parseElement reads an element. Its keys are parts of b. An attribute that the agent never writes makes the table
// foreign.
func parseElement(b []byte) (e element, err error) {
	for len(b) >= unix.SizeofNlAttr {
		typ, value, rest, err := nfnl.CutAttr(b)
		if err != nil {
			return e, err
		}
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			e.key, err = dataValue(value)
		// Only a range of a concatenation has a key for its end; other ranges have an end element.
		case setKeyEnd:
			e.keyEnd, err = dataValue(value)
		case unix.NFTA_SET_ELEM_FLAGS:
			e.isEnd = len(value) == 4 && binary.BigEndian.Uint32(value) == unix.NFT_SET_ELEM_INTERVAL_END
			if !e.isEnd && !allZero(value) {
				err = errForeign
			}
		default:
			err = errForeign // a timeout, a counter, a comment
		}
		if err != nil {
			return e, err
		}
		b = rest
	}
	return e, nil
}

// dataValue returns the value in a nest of struct nft_data. It is nil if the nest has no value.
func dataValue(nest []byte) (found []byte, err error) {
	for len(nest) >= unix.SizeofNlAttr {
		typ, value, rest, err := nfnl.CutAttr(nest)
		if err != nil {
			return nil, err
		}
		if typ == unix.NFTA_DATA_VALUE {
			found = value
		}
		nest = rest
	}
	return found, nil
}

// allZero reports whether all bytes are 0.
func allZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// elementsOf returns the content of a set of the kind, or nil if no Ruleset can have these elements. If a likely content is
// equal, elementsOf returns the likely content: then the plan finds without a comparison that nothing changed.
func elementsOf(kind Elements, list []element, likely ...Elements) Elements {
	switch kind := kind.(type) {
	case Addrs:
		ranges, ok := rangesOf(list)
		for _, l := range likely {
			if l, is := l.(Addrs); ok && is && l.Family == kind.Family && l.holds(ranges) {
				// Without a merge of the likely set: the ranges are compared one by one.
				return l
			}
		}
		kind.Addrs = sets.NewAddrs(ranges...)
		if !ok || kind.Addrs.Len(kind.Family) != len(ranges) { // not merged: the ranges of the set neither overlap nor touch
			return nil
		}
		return kind
	case Hosts:
		return hostsOf(kind.Family, list, likely)
	case Ports:
		return portsOf(kind.IsPlain(), list)
	case Endpoints:
		var endpoints []sets.Endpoint
		// A key is the address, and 8 bytes for the protocol and the port.
		for _, e := range list {
			n := len(e.key) - 8
			addr, ok := netip.AddrFromSlice(e.key[:max(n, 0)])
			if !ok || sets.FamilyOf(addr) != kind.Family {
				return nil
			}
			endpoints = append(endpoints, sets.Endpoint{Addr: addr, Proto: e.key[n], Port: binary.BigEndian.Uint16(e.key[n+4:])})
		}
		kind.Endpoints = sets.NewEndpoints(endpoints...)
		return kind
	case Numbers:
		ranges, ok := numberRangesOf(kind.Type, list)
		kind.Numbers = sets.NewNumbers(ranges...)
		if !ok || kind.Numbers.Len() != len(ranges) { // not merged, as above
			return nil
		}
		return kind
	}
	return nil
}

// hostsOf returns the content of a hash set of addresses, or nil if a key is no address of the family.
func hostsOf(f sets.Family, list []element, likely []Elements) Elements {
	hosts := make([]sets.AddrRange, 0, len(list))
	for _, e := range list {
		addr, ok := netip.AddrFromSlice(e.key)
		if !ok || addr.Is4() != (f == sets.V4) {
			return nil
		}
		hosts = append(hosts, sets.AddrRange{From: addr, To: addr})
	}
	addrs := sets.NewAddrs(hosts...)
	for _, l := range likely {
		if l, is := l.(Hosts); is && l.Family == f && sets.DiffAddrs(l.Addrs, addrs, f).IsEmpty() {
			return l
		}
	}
	return NewHosts(f, addrs)
}

// portsOf returns the content of a set of ports, or nil if no Ruleset can have it.
func portsOf(isPlain bool, list []element) Elements {
	var ranges []sets.PortRange
	for _, e := range list {
		// An element of a plain set is a single port.
		if isPlain {
			e.keyEnd = e.key
		}
		if len(e.key) != 8 || len(e.keyEnd) != 8 || e.key[4] != e.keyEnd[4] {
			return nil
		}
		ranges = append(ranges, sets.PortRange{
			Proto: e.key[4],
			From:  binary.BigEndian.Uint16(e.key),
			To:    binary.BigEndian.Uint16(e.keyEnd),
		})
	}
	p := Ports{sets.NewPorts(ranges...)}
	// A plain set has only single ports, and the other kind has at least one range.
	if p.IsPlain() != isPlain || !isPlain && size(p) != len(ranges) {
		return nil
	}
	return p
}

// holds reports whether the set consists of exactly these ranges, which are ascending.
func (a Addrs) holds(ranges []sets.AddrRange) bool {
	if a.Addrs.Len(a.Family) != len(ranges) {
		return false
	}
	i := 0
	for r := range a.Addrs.Ranges(a.Family) {
		if r != ranges[i] {
			return false
		}
		i++
	}
	return true
}

// interval is a range of an interval set: the key where it starts, and the first key behind it; nil for a range without
// end.
type interval struct{ from, after []byte }

// intervalsOf pairs the starts and ends of an interval set, which the kernel dumps in an order of its own.
func intervalsOf(list []element) ([]interval, bool) {
	// By key. At the same key, the end of a range comes before the start of the next range.
	slices.SortFunc(list, func(a, b element) int {
		if c := bytes.Compare(a.key, b.key); c != 0 {
			return c
		}
		if a.isEnd {
			return -1
		}
		return 1
	})
	intervals := make([]interval, 0, len(list)/2+1)
	isOpen := false
	for _, e := range list {
		// Starts and ends must alternate, or the set is none that the agent writes.
		if e.isEnd != isOpen {
			return nil, false
		}
		if isOpen {
			intervals[len(intervals)-1].after = e.key
		} else {
			intervals = append(intervals, interval{from: e.key})
		}
		isOpen = !isOpen
	}
	return intervals, true
}

// rangesOf returns the ranges of an interval set of addresses.
func rangesOf(list []element) ([]sets.AddrRange, bool) {
	intervals, ok := intervalsOf(list)
	ranges := make([]sets.AddrRange, 0, len(intervals))
	for _, i := range intervals {
		from, isAddr := netip.AddrFromSlice(i.from)
		if !isAddr {
			return nil, false
		}
		if i.after == nil {
			ranges = append(ranges, sets.AddrRange{From: from, To: lastOf(from)})
			continue
		}
		after, isAddr := netip.AddrFromSlice(i.after)
		if !isAddr {
			return nil, false
		}
		ranges = append(ranges, sets.AddrRange{From: from, To: after.Prev()})
	}
	return ranges, ok
}

// numberRangesOf returns the ranges of an interval set of numbers.
func numberRangesOf(d expr.Datatype, list []element) ([]sets.NumberRange, bool) {
	intervals, ok := intervalsOf(list)
	ranges := make([]sets.NumberRange, 0, len(intervals))
	for _, i := range intervals {
		if len(i.from) != d.Len() || i.after != nil && len(i.after) != d.Len() {
			return nil, false
			// A range without an end goes to the largest number.
		}
		r := sets.NumberRange{From: number(i.from), To: d.Max()}
		if i.after != nil {
			r.To = number(i.after) - 1
		}
		ranges = append(ranges, r)
	}
	return ranges, ok
}

// number reads a key of at most four bytes.
func number(key []byte) uint32 {
	var n uint32
	for _, b := range key {
		n = n<<8 | uint32(b)
	}
	return n
}

// lastOf returns the last address of the family, at which a range without an end element ends.
func lastOf(a netip.Addr) netip.Addr {
	b := a.AsSlice()
	for i := range b {
		b[i] = 0xff
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}
