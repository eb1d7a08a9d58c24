package sets

import "net/netip"

// Family is an address family. Its value is the IP version.
type Family uint8

// The two address families.
const (
	V4 Family = 4
	V6 Family = 6
)

// Families lists both families, in the order in which everything that has one
// part a family is laid out.
var Families = [...]Family{V4, V6}

// String returns "v4" or "v6", and "invalid" for anything else.
func (f Family) String() string {
	switch f {
	case V4:
		return "v4"
	case V6:
		return "v6"
	}
	return "invalid"
}

// FamilyOf returns the family of an address on the wire. An IPv4 address mapped
// into IPv6 (::ffff:10.0.0.1) is V4, because everything here unmaps a single
// address before use. An invalid address has no family: the result is 0.
func FamilyOf(a netip.Addr) Family {
	return familyOf(a.Unmap())
}

// familyOf is the family of an address taken as it is written, mapped or not.
func familyOf(a netip.Addr) Family {
	switch {
	case a.Is4():
		return V4
	case a.Is6():
		return V6
	}
	return 0
}
