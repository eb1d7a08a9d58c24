package expr

import (
	"net/netip"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/bytecode"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// AddressField is the source or destination address of packets of a family. A match on it never matches a packet of the
// other family, not even with IsNot.
type AddressField struct {
	field
	// offset is the place of the address in the network header of the family, bytes.
	family sets.Family
	offset uint32
}

// Source returns the field `ip saddr` or `ip6 saddr`.
func Source(f sets.Family) AddressField { return address(f, " saddr", familyOf(f).source) }

// Destination returns the field `ip daddr` or `ip6 daddr`.
func Destination(f sets.Family) AddressField { return address(f, " daddr", familyOf(f).dest) }

// address makes the field from the word that nft uses (" saddr") and the offset of the address in the header of the
// family.
func address(f sets.Family, word string, offset uint32) AddressField {
	fam := familyOf(f)
	return AddressField{
		field: field{
			words: fam.word + word, checks: fam.isFamily(), load: []bytecode.Any{fam.load(offset)}, size: fam.addrLen,
		},
		family: f,
		offset: offset,
	}
}

// Family returns the family of the field.
func (a AddressField) Family() sets.Family { return a.family }

// In matches the field with a named set of addresses of its family. The set must be in the same table as the rule.
func (a AddressField) In(op Op, set string) Statement { return a.in(op, set) }

// Range matches the field with an address or a range of addresses. The range must be valid and of the field's family.
func (a AddressField) Range(op Op, r sets.AddrRange) Statement {
	if r.From == r.To {
		return a.equal(op, r.From.String(), r.From.AsSlice())
	}
	// AddrRange.String would write a prefix where the range is a prefix. nft prints a range of a match with both ends.
	return a.within(op, r.From.String()+"-"+r.To.String(), r.From.AsSlice(), r.To.AsSlice())
}

// Prefix matches the field with a prefix. The prefix must be valid and of the field's family. As nft does, it loads only the
// bytes of the prefix if the length is a multiple of 8, and masks the whole address otherwise.
func (a AddressField) Prefix(op Op, p netip.Prefix) Statement {
	// nft prints a prefix without its host bits, and the kernel compares the masked address with all bits of the value.
	p = p.Masked()
	bits, value := p.Bits(), p.Addr().AsSlice()
	switch {
	case bits == 8*a.size:
		return a.equal(op, p.Addr().String(), value)
	case bits > 0 && bits%8 == 0:
		// The bytes of the prefix are the first bytes of the address, so a shorter load replaces the mask.
		short := a.field
		short.load = []bytecode.Any{&bytecode.Payload{
			DestRegister: reg, Base: bytecode.PayloadBaseNetworkHeader, Offset: a.offset, Len: uint32(bits / 8),
		}}
		return short.equal(op, p.String(), value[:bits/8])
	}
	// Also for /0: a mask of zeros makes the match true for every packet of the family.
	mask := make([]byte, a.size)
	for i := range bits {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return a.masked(op, op.text()+p.String(), mask, value)
}
