package sets

import (
	"math/bits"
	"net/netip"
	"strconv"
)

// AddrRange is a range of addresses of a family, both ends included.
//
// Sets do not unmap the ends of a range: a range with 4in6 addresses as its ends
// is a range of IPv6. [Single] and [PrefixRange] unmap them.
type AddrRange struct{ From, To netip.Addr }

// Single returns the range of a single address. It unmaps a 4in6 address and
// drops a zone. For an invalid address the range is invalid.
func Single(a netip.Addr) AddrRange {
	a = a.Unmap().WithZone("")
	return AddrRange{a, a}
}

// PrefixRange returns the addresses of a prefix. It ignores host bits. A prefix
// within ::ffff:0:0/96 becomes the IPv4 prefix that it maps. For an invalid
// prefix the range is invalid.
func PrefixRange(p netip.Prefix) AddrRange {
	if !p.IsValid() {
		return AddrRange{}
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	p = p.Masked()
	from, host := number(p.Addr()), hostMask(p.Addr().BitLen()-p.Bits())
	to := uint128{from.hi | host.hi, from.lo | host.lo}
	return AddrRange{p.Addr(), to.addr(familyOf(p.Addr()))}
}

// IsValid reports whether the range has two valid ends of a family, in order
// and without a zone. Sets ignore a range that is not valid.
func (r AddrRange) IsValid() bool {
	f := familyOf(r.From)
	return f != 0 && f == familyOf(r.To) &&
		r.From.Zone() == "" && r.To.Zone() == "" && !r.To.Less(r.From)
}

// String returns the range as nft prints an interval: "10.0.0.1" for one
// address, "10.0.0.0/24" for exactly a prefix, "10.0.0.1-10.0.0.9" for any
// other, and "invalid" for a range that is not valid.
func (r AddrRange) String() string {
	if !r.IsValid() {
		return "invalid"
	}
	if r.From == r.To {
		return r.From.String()
	}
	if n, ok := r.span().prefix(); ok {
		return r.From.String() + "/" + strconv.Itoa(r.From.BitLen()-n)
	}
	return r.From.String() + "-" + r.To.String()
}

// span returns the range as numbers. The range must be valid.
func (r AddrRange) span() span { return span{number(r.From), number(r.To)} }

// span is a range of addresses as numbers, both ends included.
type span struct{ from, to uint128 }

// addrRange returns the span as a range of family f.
func (s span) addrRange(f Family) AddrRange {
	return AddrRange{s.from.addr(f), s.to.addr(f)}
}

// prefix reports whether the span is exactly a prefix, and returns the number of
// the prefix's host bits.
func (s span) prefix() (host int, ok bool) {
	diff := uint128{s.from.hi ^ s.to.hi, s.from.lo ^ s.to.lo}
	host = bits.Len64(diff.lo)
	if diff.hi != 0 {
		host = 64 + bits.Len64(diff.hi)
	}
	low := uint128{s.from.hi & diff.hi, s.from.lo & diff.lo}
	return host, diff == hostMask(host) && low == uint128{}
}

// hostMask returns a number whose n low bits are set.
func hostMask(n int) uint128 {
	if n > 64 {
		return uint128{1<<(n-64) - 1, ^uint64(0)}
	}
	return uint128{0, 1<<n - 1}
}
