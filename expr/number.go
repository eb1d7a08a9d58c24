package expr

import (
	"fmt"
	"math/bits"

	"github.com/google/nftables/binaryutil"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/bytecode"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/uapi"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// NumberField is a field that holds a number: a port, a protocol, a message type or a mark. Type gives the length, the
// byte order and the names of the number.
type NumberField struct {
	field
	Type Datatype
}

// Transport is a transport protocol with ports at the start of its header.
type Transport uint8

// The transport protocols. AnyTransport is `th` of nft: it compares the bytes of the ports without a check of the protocol.
const (
	AnyTransport Transport = 0
	TCP          Transport = uapi.IPPROTO_TCP
	UDP          Transport = uapi.IPPROTO_UDP
	SCTP         Transport = uapi.IPPROTO_SCTP
)

// HasPorts reports whether the header of an IP protocol begins with ports.
func HasPorts(protocol uint8) bool {
	switch Transport(protocol) {
	case TCP, UDP, SCTP:
		return true
	}
	return false
}

func (t Transport) word() string {
	if t == AnyTransport {
		return "th"
	}
	return TypeInetProto.Text(uint32(t))
}

// SourcePort returns the field `tcp sport`, `udp sport`, `sctp sport` or `th sport`.
func SourcePort(t Transport) NumberField { return port(t, " sport", sourcePort) }

// DestinationPort returns the field `tcp dport`, `udp dport`, `sctp dport` or `th dport`.
func DestinationPort(t Transport) NumberField { return port(t, " dport", destinationPort) }

// port makes the field from the word that nft uses and the offset of the port in the header.
func port(t Transport, word string, offset uint32) NumberField {
	f := field{words: t.word() + word, load: []bytecode.Any{loadTransport(reg, offset, 2)}, size: 2}
	if t != AnyTransport {
		f.checks = l4proto(byte(t))
	}
	return NumberField{f, TypeInetService}
}

// L4Protocol returns the field `meta l4proto`: the protocol after the IP header and all IPv6 extension headers.
func L4Protocol() NumberField {
	load := []bytecode.Any{&bytecode.Meta{Key: bytecode.MetaKeyL4PROTO, Register: reg}}
	return NumberField{field{words: "meta l4proto", load: load, size: 1}, TypeInetProto}
}

// ICMPType returns the field `icmp type` or `icmpv6 type`.
func ICMPType(f sets.Family) NumberField {
	words, number, datatype := "icmp type", byte(uapi.IPPROTO_ICMP), TypeICMP
	if f == sets.V6 {
		words, number, datatype = "icmpv6 type", uapi.IPPROTO_ICMPV6, TypeICMPv6
	}
	return NumberField{field{
		words: words,
		// Both checks are needed: an ICMP message in an IPv6 packet is no ICMP message for `icmp type`.
		checks: append(familyOf(f).isFamily(), l4proto(number)...),
		load:   []bytecode.Any{loadTransport(reg, 0, 1)},
		size:   1,
	}, datatype}
}

// Mark returns the field `meta mark`: the mark that the host has put on the packet (skb->mark). The kernel loads it in
// host byte order, so comparisons of ranges and sets swap it first.
func Mark() NumberField {
	return NumberField{field{
		words: "meta mark",
		load:  []bytecode.Any{&bytecode.Meta{Key: bytecode.MetaKeyMARK, Register: reg}},
		swap: []bytecode.Any{&bytecode.Byteorder{
			SourceRegister: reg, DestRegister: reg, Op: bytecode.ByteorderHton, Len: slotSize, Size: slotSize,
		}},
		size: slotSize,
	}, TypeMark}
}

// In matches the field with a named set of the field's type.
func (n NumberField) In(op Op, set string) Statement { return n.in(op, set) }

// Range matches the field with a number or a range of numbers. Both ends belong to the range, and neither may exceed
// the Max of the type.
func (n NumberField) Range(op Op, r sets.NumberRange) Statement {
	text := n.Type.rangeText(r)
	if r.From == r.To {
		return n.equal(op, text, n.value(r.From))
	}
	return n.within(op, text, n.Type.Append(nil, r.From), n.Type.Append(nil, r.To))
}

// value returns the number in the byte order in which the kernel loads the field.
func (n NumberField) value(v uint32) []byte {
	if n.Type.HostOrder() {
		return binaryutil.NativeEndian.PutUint32(v)
	}
	return n.Type.Append(nil, v)
}

// MarkMasked is `meta mark & MASK == VALUE`. Like nft, it writes a mask that has only leading bits as a prefix, and compares
// without a mask if all bits are set.
func MarkMasked(op Op, mask, value uint32) Statement {
	n := Mark()
	// The number of leading bits that are set, as the length of a prefix.
	leading := bits.LeadingZeros32(^mask)
	switch {
	case leading == 32:
		return n.Range(op, sets.NumberRange{From: value, To: value})
	// The mask has only leading bits.
	case leading == bits.OnesCount32(mask):
		return n.masked(op, fmt.Sprintf("%s%s/%d", op.text(), TypeMark.Text(value), leading), n.value(mask), n.value(value))
	}
	sign := "=="
	if op == IsNot {
		sign = "!="
	}
	return n.masked(op, fmt.Sprintf("& %s %s %s", TypeMark.Text(mask), sign, TypeMark.Text(value)), n.value(mask), n.value(value))
}
