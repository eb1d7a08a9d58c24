package expr

import (
	"net/netip"

	"github.com/google/nftables/expr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// AddressField is the source or the destination address of one family; packets of the other family do not match,
// whatever they are compared with.
type AddressField struct {
	field
	family sets.Family
	offset uint32
}

// Source is `ip saddr` or `ip6 saddr`.
func Source(f sets.Family) AddressField { return address(f, " saddr", familyOf(f).source) }

// Destination is `ip daddr` or `ip6 daddr`.
func Destination(f sets.Family) AddressField { return address(f, " daddr", familyOf(f).dest) }

func address(f sets.Family, word string, offset uint32) AddressField {
	fam := familyOf(f)
	return AddressField{
		field: field{
			words: fam.word + word, guard: fam.isFamily(), load: []expr.Any{fam.load(offset)}, size: fam.addrLen,
		},
		family: f,
		offset: offset,
	}
}

// Family is the family of the addresses.
func (a AddressField) Family() sets.Family { return a.family }

// In is a match with a set of addresses.
func (a AddressField) In(op Op, set string) Statement { return a.in(op, set) }

// Range is a match with an address or a range of them, which must be valid and of the field's family.
func (a AddressField) Range(op Op, r sets.AddrRange) Statement {
	if r.From == r.To {
		return a.equal(op, r.From.String(), r.From.AsSlice())
	}
	// Not AddrRange's own text: nft prints a range as one, also where it is a prefix.
	return a.within(op, r.From.String()+"-"+r.To.String(), r.From.AsSlice(), r.To.AsSlice())
}

// Prefix is a match with a prefix, which must be valid and of the field's family. As nft does, whole bytes are compared
// without the rest of the address, and other lengths under a mask.
func (a AddressField) Prefix(op Op, p netip.Prefix) Statement {
	p = p.Masked()
	bits, value := p.Bits(), p.Addr().AsSlice()
	switch {
	case bits == 8*a.size:
		return a.equal(op, p.Addr().String(), value)
	case bits > 0 && bits%8 == 0:
		short := a.field
		short.load = []expr.Any{&expr.Payload{
			DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: a.offset, Len: uint32(bits / 8),
		}}
		return short.equal(op, p.String(), value[:bits/8])
	}
	mask := make([]byte, a.size)
	for i := range bits {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return a.masked(op, op.text()+p.String(), mask, value)
}
