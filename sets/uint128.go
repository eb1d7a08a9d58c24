package sets

import (
	"cmp"
	"encoding/binary"
	"net/netip"
)

// uint128 is an address as a number. IPv4 addresses take the low 32 bits. The
// number does not tell its family: each family has its own tree.
type uint128 struct{ hi, lo uint64 }

// maxUint128 is the number of the last IPv6 address.
var maxUint128 = uint128{^uint64(0), ^uint64(0)}

// compare orders numbers.
func (u uint128) compare(v uint128) int {
	if u.hi != v.hi {
		return cmp.Compare(u.hi, v.hi)
	}
	return cmp.Compare(u.lo, v.lo)
}

// less reports whether u comes before v.
func (u uint128) less(v uint128) bool {
	return u.hi < v.hi || u.hi == v.hi && u.lo < v.lo
}

// next returns u+1, or u for the last IPv6 address. The number after the last
// IPv4 address needs no special case: no IPv4 range starts at it.
func (u uint128) next() uint128 {
	if u == maxUint128 {
		return u
	}
	u.lo++
	if u.lo == 0 {
		u.hi++
	}
	return u
}

// prev returns u-1. u must not be zero.
func (u uint128) prev() uint128 {
	if u.lo == 0 {
		u.hi--
	}
	u.lo--
	return u
}

// number returns the address as a number within its own family. A 4in6 address
// is not unmapped. a must be valid.
func number(a netip.Addr) uint128 {
	if a.Is4() {
		b := a.As4()
		return uint128{lo: uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return uint128{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// addr is the inverse of number: it returns the address of family f.
func (u uint128) addr(f Family) netip.Addr {
	if f == V4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(u.lo))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], u.hi)
	binary.BigEndian.PutUint64(b[8:], u.lo)
	return netip.AddrFrom16(b)
}
