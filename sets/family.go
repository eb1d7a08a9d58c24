package sets

import "net/netip"

// Family is an address family. Its value is the IP version.
type Family uint8

// The two address families.
const (
	V4 Family = 4
	V6 Family = 6
)

// Families lists both families. Rules, sets and output with a part for each
// family have the parts in this order.
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

// FamilyOf returns the family of packets to or from an address. A 4in6 address
// (::ffff:10.0.0.1) is V4, because sets unmap single addresses. For an invalid
// address the result is 0.
func FamilyOf(a netip.Addr) Family {
	return familyOf(a.Unmap())
}

// familyOf returns the family of an address without unmapping it: a 4in6 address
// is V6. For an invalid address the result is 0.
func familyOf(a netip.Addr) Family {
	switch {
	case a.Is4():
		return V4
	case a.Is6():
		return V6
	}
	return 0
}
