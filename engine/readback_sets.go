package engine

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// kinds is every kind of set that a Ruleset can have, empty.
var kinds = allKinds()

func allKinds() []Elements {
	list := []Elements{Ports{}}
	for _, f := range sets.Families {
		list = append(list, Addrs{Family: f}, Endpoints{Family: f})
	}
	for _, d := range expr.Datatypes {
		list = append(list, Numbers{Type: d})
	}
	return list
}

func (r *reader) readSets() error {
	err := r.dump(unix.NFT_MSG_GETSET, unix.NFT_MSG_NEWSET, "GETSET", func(a attrs) error {
		kind, err := kindOf(a)
		if err != nil {
			return err
		}
		r.sets = append(r.sets, &Set{
			Name:     a.string(unix.NFTA_SET_NAME),
			Comment:  tlv(a[unix.NFTA_SET_USERDATA], userdata.NFTNL_UDATA_SET_COMMENT),
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
		// A comment that was cut on its way is the wanted one all the same.
		if i, ok := slices.BinarySearchFunc(r.want.Sets, s.Name, func(w *Set, name string) int {
			return strings.Compare(w.Name, name)
		}); ok && commentText(r.want.Sets[i].Comment) == s.Comment {
			s.Comment = r.want.Sets[i].Comment
		}
	}
	return nil
}

// kindOf is which kind of set it is, or errForeign.
func kindOf(a attrs) (Elements, error) {
	for _, other := range []uint16{unix.NFTA_SET_TIMEOUT, unix.NFTA_SET_DATA_TYPE, unix.NFTA_SET_OBJ_TYPE, setExpr, setExpressions} {
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
		if a.uint32(unix.NFTA_SET_FLAGS) == l.flags && a.uint32(unix.NFTA_SET_KEY_TYPE) == l.keyType &&
			a.uint32(unix.NFTA_SET_KEY_LEN) == l.keyLen && slices.Equal(fields, l.fields) {
			return kind, nil
		}
	}
	return nil, errForeign
}

// fieldsOf is the lengths of the fields of a concatenation with ranges.
func fieldsOf(desc []byte) (fields []uint32, err error) {
	d, err := parseAttrs(desc)
	if err != nil {
		return nil, err
	}
	err = eachAttr(d[setDescConcat], func(_ uint16, field []byte) {
		if f, e := parseAttrs(field); e == nil {
			fields = append(fields, f.uint32(setFieldLen))
		}
	})
	return fields, err
}

// element is one element of a set as the kernel has it.
type element struct {
	key, keyEnd []byte
	isEnd       bool // INTERVAL_END
}

func (r *reader) readElements(s *Set) error {
	var list []element
	r.batch.reset()
	r.batch.begin(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, message{op: "GETSETELEM", object: s.Name})
	r.batch.string(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
	r.batch.string(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	r.batch.end()
	err := r.ask(r.transport, unix.NFT_MSG_NEWSETELEM, func(a attrs) error {
		var bad error
		err := eachAttr(a[unix.NFTA_SET_ELEM_LIST_ELEMENTS], func(_ uint16, b []byte) {
			e, err := parseElement(b)
			if err != nil {
				bad = err
			}
			list = append(list, e)
		})
		if err != nil {
			return err
		}
		return bad
	})
	if err != nil {
		return err
	}
	if s.Elements = elementsOf(s.Elements, list); s.Elements == nil {
		return errForeign
	}
	return nil
}

func parseElement(b []byte) (element, error) {
	var e element
	a, err := parseAttrs(b)
	if err != nil {
		return e, err
	}
	flags := a.uint32(unix.NFTA_SET_ELEM_FLAGS)
	if flags&^unix.NFT_SET_ELEM_INTERVAL_END != 0 {
		return e, errForeign
	}
	e.isEnd = flags != 0
	for typ, value := range a {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY, setKeyEnd:
			v, err := parseAttrs(value)
			if err != nil {
				return e, err
			}
			// The buffer is used again for the next datagram.
			if key := bytes.Clone(v[unix.NFTA_DATA_VALUE]); typ == setKeyEnd {
				e.keyEnd = key
			} else {
				e.key = key
			}
		case unix.NFTA_SET_ELEM_FLAGS:
		default:
			return e, errForeign // a timeout, a counter, a comment
		}
	}
	return e, nil
}

// elementsOf is the content of a set of the kind, or nil if no set of ours can have these elements.
func elementsOf(kind Elements, list []element) Elements {
	switch kind := kind.(type) {
	case Addrs:
		ranges, ok := rangesOf(list)
		kind.Addrs = sets.NewAddrs(ranges...)
		if !ok || kind.Addrs.Len(kind.Family) != len(ranges) { // not merged
			return nil
		}
		return kind
	case Ports:
		var ranges []sets.PortRange
		for _, e := range list {
			if len(e.key) != 8 || len(e.keyEnd) != 8 || e.key[4] != e.keyEnd[4] {
				return nil
			}
			ranges = append(ranges, sets.PortRange{
				Proto: e.key[4],
				From:  binary.BigEndian.Uint16(e.key),
				To:    binary.BigEndian.Uint16(e.keyEnd),
			})
		}
		kind.Ports = sets.NewPorts(ranges...)
		if kind.Ports.Len() != len(ranges) {
			return nil
		}
		return kind
	case Endpoints:
		var endpoints []sets.Endpoint
		for _, e := range list {
			n := len(e.key) - 8
			addr, ok := netip.AddrFromSlice(e.key[:max(n, 0)])
			if !ok {
				return nil
			}
			endpoints = append(endpoints, sets.Endpoint{Addr: addr, Proto: e.key[n], Port: binary.BigEndian.Uint16(e.key[n+4:])})
		}
		kind.Endpoints = sets.NewEndpoints(endpoints...)
		if kind.Endpoints.Len(kind.Family) != len(endpoints) {
			return nil
		}
		return kind
	case Numbers:
		ranges, ok := numberRangesOf(kind.Type, list)
		kind.Numbers = sets.NewNumbers(ranges...)
		if !ok || kind.Numbers.Len() != len(ranges) { // not merged
			return nil
		}
		return kind
	}
	return nil
}

// interval is one range of an interval set: the key where it starts, and the first one behind it, nil if there is none.
type interval struct{ from, after []byte }

// intervalsOf pairs the starts and ends of an interval set, which the kernel dumps in an order of its own.
func intervalsOf(list []element) ([]interval, bool) {
	slices.SortFunc(list, func(a, b element) int {
		if c := bytes.Compare(a.key, b.key); c != 0 {
			return c
		}
		if a.isEnd { // of the range before
			return -1
		}
		return 1
	})
	intervals := make([]interval, 0, len(list)/2+1)
	isOpen := false
	for _, e := range list {
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

func rangesOf(list []element) ([]sets.AddrRange, bool) {
	intervals, ok := intervalsOf(list)
	ranges := make([]sets.AddrRange, 0, len(intervals))
	for _, i := range intervals {
		from, isAddr := netip.AddrFromSlice(i.from)
		if !isAddr {
			return nil, false
		}
		r := sets.AddrRange{From: from, To: lastOf(from)}
		if i.after != nil {
			after, isAddr := netip.AddrFromSlice(i.after)
			if !isAddr {
				return nil, false
			}
			r.To = after.Prev()
		}
		ranges = append(ranges, r)
	}
	return ranges, ok
}

func numberRangesOf(d expr.Datatype, list []element) ([]sets.NumberRange, bool) {
	intervals, ok := intervalsOf(list)
	ranges := make([]sets.NumberRange, 0, len(intervals))
	for _, i := range intervals {
		if len(i.from) != d.Len() || i.after != nil && len(i.after) != d.Len() {
			return nil, false
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

// lastOf is the last address of the family, where a range without an end element ends.
func lastOf(a netip.Addr) netip.Addr {
	b := a.AsSlice()
	for i := range b {
		b[i] = 0xff
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}
