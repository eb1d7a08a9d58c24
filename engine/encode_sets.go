//go:build linux

package engine

import (
	"encoding/binary"
	"math"
	"net/netip"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Constants of linux/netfilter/nf_tables.h that x/sys lacks.
const (
	setDescConcat = 2  // NFTA_SET_DESC_CONCAT
	setFieldLen   = 1  // NFTA_SET_FIELD_LEN
	setKeyEnd     = 10 // NFTA_SET_ELEM_KEY_END
)

// Byte orders as stock nft numbers them (enum byteorder). nft reads the byte order of a set's key from the userdata of
// the set. It is the order of the field in the packet; the elements of interval sets are in network byte order in any
// case.
const (
	byteOrderHost = 1
	byteOrderBig  = 2
)

// newSet writes a new set without elements. The set has no size (NFTA_SET_DESC_SIZE): the kernel then takes a hash
// table that grows, and with a size it would reserve the whole table.
func (b *batch) newSet(s *Set, id uint32) {
	l := layoutOf(s.Elements)
	b.begin(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE|unix.NLM_F_EXCL, nfnl.Label{Op: "NEWSET", Object: s.Name})
	b.Text(unix.NFTA_SET_TABLE, TableName)
	b.Text(unix.NFTA_SET_NAME, s.Name)
	b.Uint32(unix.NFTA_SET_FLAGS, l.flags)
	b.Uint32(unix.NFTA_SET_KEY_TYPE, l.keyType)
	b.Uint32(unix.NFTA_SET_KEY_LEN, l.keyLen)
	b.Uint32(unix.NFTA_SET_ID, id)
	if l.timeout > 0 {
		b.Uint64(unix.NFTA_SET_TIMEOUT, uint64(l.timeout.Milliseconds()))
	}
	if len(l.fields) > 0 {
		desc := b.Nest(unix.NFTA_SET_DESC)
		concat := b.Nest(setDescConcat)
		for _, f := range l.fields {
			field := b.Nest(unix.NFTA_LIST_ELEM)
			b.Uint32(setFieldLen, f)
			b.EndNest(field)
		}
		b.EndNest(concat)
		b.EndNest(desc)
	}
	var udata []byte
	// For nft only, see byteOrderBig.
	if l.flags == unix.NFT_SET_INTERVAL { // a concatenation has the order of its fields
		order := uint32(byteOrderBig)
		if l.hostOrder {
			order = byteOrderHost
		}
		udata = userdata.Append(udata, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, binary.NativeEndian.AppendUint32(nil, order))
	}
	if s.Comment != "" {
		udata = comment(udata, userdata.NFTNL_UDATA_SET_COMMENT, s.Comment)
	}
	if len(udata) > 0 {
		b.Data(unix.NFTA_SET_USERDATA, udata)
	}
	b.End()
}

// elementList writes elements of a set into as many messages as their number needs.
type elementList struct {
	b      *batch
	typ    uint16
	label  nfnl.Label
	set    string
	nest   int
	isOpen bool
}

// list returns a writer for elements of a set. The first element opens the first message.
func (b *batch) list(typ uint16, op, set string) elementList {
	return elementList{b: b, typ: typ, label: nfnl.Label{Op: op, Object: set}, set: set}
}

// maxNest is the length from which on the next element goes into another message: a nest has at most 65,535 bytes, and
// a pair of elements of the longest kind has less than 128.
const maxNest = math.MaxUint16 - 128

// next makes room for another element, and opens a message if none is open or the open message is full. A pair of
// elements for the two ends of a range must not be split, so next is called once for the pair.
func (l *elementList) next() {
	if l.isOpen && l.b.NestLen(l.nest) < maxNest {
		return
	}
	l.close()
	// EXCL makes an element that exists already an error, instead of a silent success.
	var flags uint16
	if l.typ == unix.NFT_MSG_NEWSETELEM {
		flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	l.b.begin(l.typ, flags, l.label)
	l.b.Text(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
	l.b.Text(unix.NFTA_SET_ELEM_LIST_SET, l.set)
	l.nest, l.isOpen = l.b.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS), true
}

// close ends the open message, if there is one.
func (l *elementList) close() {
	if l.isOpen {
		l.b.EndNest(l.nest)
		l.b.End()
		l.isOpen = false
	}
}

// key writes a key attribute of an element, NFTA_SET_ELEM_KEY or _KEY_END.
func (l *elementList) key(typ uint16, key []byte) {
	k := l.b.Nest(typ)
	l.b.Data(unix.NFTA_DATA_VALUE, key)
	l.b.EndNest(k)
}

// element writes an element with a single key.
func (l *elementList) element(key []byte, flags uint32) {
	e := l.b.Nest(unix.NFTA_LIST_ELEM)
	l.key(unix.NFTA_SET_ELEM_KEY, key)
	if flags != 0 {
		l.b.Uint32(unix.NFTA_SET_ELEM_FLAGS, flags)
	}
	l.b.EndNest(e)
}

// addrRange writes a range as an interval set needs it: an element where the range starts, and an element with the flag
// INTERVAL_END at the first address behind the range. A range up to the last address of the family has no end element:
//
//	10.0.0.1-10.0.0.3        10.0.0.1    10.0.0.4 INTERVAL_END
//	255.0.0.0/8              255.0.0.0
func (l *elementList) addrRange(r sets.AddrRange) {
	l.next()
	var key [16]byte
	l.element(appendAddr(key[:0], r.From), 0)
	if after := r.To.Next(); after.IsValid() {
		l.element(appendAddr(key[:0], after), unix.NFT_SET_ELEM_INTERVAL_END)
	}
}

// numberRange writes a range as addrRange does. A range up to the greatest number has no end.
func (l *elementList) numberRange(d expr.Datatype, r sets.NumberRange) {
	l.next()
	var key [4]byte
	l.element(d.Append(key[:0], r.From), 0)
	if r.To < d.Max() {
		l.element(d.Append(key[:0], r.To+1), unix.NFT_SET_ELEM_INTERVAL_END)
	}
}

// portRange writes a range of ports with both ends, even for a single port: the kernel requires KEY_END for every
// element of a concatenation with ranges. Fields are padded to four bytes. The element for 8000-8080/tcp:
//
//	KEY      1f 40 00 00  06 00 00 00
//	KEY_END  1f 90 00 00  06 00 00 00
func (l *elementList) portRange(r sets.PortRange) {
	l.next()
	e := l.b.Nest(unix.NFTA_LIST_ELEM)
	var key [8]byte
	key[4] = r.Proto
	binary.BigEndian.PutUint16(key[:], r.From)
	l.key(unix.NFTA_SET_ELEM_KEY, key[:])
	binary.BigEndian.PutUint16(key[:], r.To)
	l.key(setKeyEnd, key[:])
	l.b.EndNest(e)
}

// singlePorts writes each port of a range.
// It is for plain sets, which are hash sets and have no ranges.
func (l *elementList) singlePorts(r sets.PortRange) {
	for port := int(r.From); port <= int(r.To); port++ {
		l.next()
		var key [8]byte
		key[4] = r.Proto
		binary.BigEndian.PutUint16(key[:], uint16(port))
		l.element(key[:], 0)
	}
}

// host writes a single address into a hash set.
func (l *elementList) host(a netip.Addr) {
	l.next()
	var key [16]byte
	l.element(appendAddr(key[:0], a), 0)
}

// endpoint writes address, protocol and port, each field padded to four bytes.
// For 10.0.0.1, tcp, 80 the key is 0a 00 00 01  06 00 00 00  00 50 00 00.
func (l *elementList) endpoint(e sets.Endpoint) {
	l.next()
	var space [24]byte
	key := appendAddr(space[:0], e.Addr)
	key = append(key, e.Proto, 0, 0, 0)
	key = binary.BigEndian.AppendUint16(key, e.Port)
	l.element(append(key, 0, 0), 0)
}

// fillSet writes all elements of a new set.
// A set of kind Served starts empty: its elements are not part of a ruleset.
func (b *batch) fillSet(s *Set) {
	l := b.list(unix.NFT_MSG_NEWSETELEM, "NEWSETELEM", s.Name)
	switch e := s.Elements.(type) {
	case Addrs:
		for r := range e.Addrs.Ranges(e.Family) {
			l.addrRange(r)
		}
	case Hosts:
		for a := range e.Addrs.Hosts(e.Family) {
			l.host(a)
		}
	case Ports:
		for r := range e.Ports.Ranges() {
			if e.IsPlain() {
				l.singlePorts(r)
			} else {
				l.portRange(r)
			}
		}
	case Endpoints:
		for ep := range e.Endpoints.All(e.Family) {
			l.endpoint(ep)
		}
	case Numbers:
		for r := range e.Numbers.Ranges() {
			l.numberRange(e.Type, r)
		}
	}
	l.close()
}

// writeElements writes messages that add or delete all the elements.
func writeElements[T any](l elementList, elements []T, write func(*elementList, T)) {
	for _, e := range elements {
		write(&l, e)
	}
	l.close()
}

// appendAddr appends the address in network byte order: 4 or 16 bytes.
func appendAddr(buf []byte, a netip.Addr) []byte {
	if a.Is4() {
		b := a.As4()
		return append(buf, b[:]...)
	}
	b := a.As16()
	return append(buf, b[:]...)
}
