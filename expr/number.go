package expr

import (
	"fmt"
	"math/bits"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// NumberField is a field that holds a number.
type NumberField struct {
	field
	Type Datatype
}

// Transport is a protocol whose header begins with the ports.
type Transport uint8

// The transport protocols. AnyTransport is `th`: no check of the protocol, only of the bytes where these have ports.
const (
	AnyTransport Transport = 0
	TCP          Transport = unix.IPPROTO_TCP
	UDP          Transport = unix.IPPROTO_UDP
	SCTP         Transport = unix.IPPROTO_SCTP
)

// HasPorts says whether the header of a protocol begins with ports.
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

// SourcePort is `tcp sport` and the like.
func SourcePort(t Transport) NumberField { return port(t, " sport", sourcePort) }

// DestinationPort is `tcp dport` and the like.
func DestinationPort(t Transport) NumberField { return port(t, " dport", destinationPort) }

func port(t Transport, word string, offset uint32) NumberField {
	f := field{words: t.word() + word, load: []expr.Any{loadTransport(reg, offset, 2)}, size: 2}
	if t != AnyTransport {
		f.guard = l4proto(byte(t))
	}
	return NumberField{f, TypeInetService}
}

// L4Protocol is `meta l4proto`: the protocol behind all headers of IP.
func L4Protocol() NumberField {
	load := []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}}
	return NumberField{field{words: "meta l4proto", load: load, size: 1}, TypeInetProto}
}

// ICMPType is `icmp type` or `icmpv6 type`.
func ICMPType(f sets.Family) NumberField {
	words, number, datatype := "icmp type", byte(unix.IPPROTO_ICMP), TypeICMP
	if f == sets.V6 {
		words, number, datatype = "icmpv6 type", unix.IPPROTO_ICMPV6, TypeICMPv6
	}
	return NumberField{field{
		words: words,
		guard: append(familyOf(f).isFamily(), l4proto(number)...),
		load:  []expr.Any{loadTransport(reg, 0, 1)},
		size:  1,
	}, datatype}
}

// Mark is `meta mark`.
func Mark() NumberField {
	return NumberField{field{
		words: "meta mark",
		load:  []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: reg}},
		swap: []expr.Any{&expr.Byteorder{
			SourceRegister: reg, DestRegister: reg, Op: expr.ByteorderHton, Len: slotSize, Size: slotSize,
		}},
		size: slotSize,
	}, TypeMark}
}

// In is a match with a set of the field's type.
func (n NumberField) In(op Op, set string) Statement { return n.in(op, set) }

// Range is a match with a number or a range of them.
func (n NumberField) Range(op Op, r sets.NumberRange) Statement {
	text := n.Type.rangeText(r)
	if r.From == r.To {
		return n.equal(op, text, n.value(r.From))
	}
	return n.within(op, text, n.Type.Append(nil, r.From), n.Type.Append(nil, r.To))
}

// value is the number in the byte order that the packet has it in.
func (n NumberField) value(v uint32) []byte {
	if n.Type.HostOrder() {
		return binaryutil.NativeEndian.PutUint32(v)
	}
	return n.Type.Append(nil, v)
}

// MarkMasked is `meta mark & MASK == VALUE`. nft takes a mask of leading ones for a prefix.
func MarkMasked(op Op, mask, value uint32) Statement {
	n := Mark()
	ones := bits.LeadingZeros32(^mask)
	switch {
	case ones == 32:
		return n.Range(op, sets.NumberRange{From: value, To: value})
	case ones == bits.OnesCount32(mask):
		return n.masked(op, fmt.Sprintf("%s%s/%d", op.text(), TypeMark.Text(value), ones), n.value(mask), n.value(value))
	}
	sign := "=="
	if op == IsNot {
		sign = "!="
	}
	return n.masked(op, fmt.Sprintf("& %s %s %s", TypeMark.Text(mask), sign, TypeMark.Text(value)), n.value(mask), n.value(value))
}
