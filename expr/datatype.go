package expr

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Datatype is the type of the numbers in a field or a set. Its value is the number that stock nft gives to the type
// (nftables, include/datatype.h, enum datatypes). The kernel only stores this number, for nft to print elements.
type Datatype uint32

// The types of fields that hold numbers.
const (
	TypeInetProto   Datatype = 12
	TypeInetService Datatype = 13
	TypeICMP        Datatype = 14
	TypeMark        Datatype = 19
	TypeICMPv6      Datatype = 29
)

// Datatypes lists all types.
var Datatypes = [...]Datatype{TypeInetProto, TypeInetService, TypeICMP, TypeMark, TypeICMPv6}

// String returns the name of the type in nft.
func (d Datatype) String() string {
	switch d {
	case TypeInetProto:
		return "inet_proto"
	case TypeInetService:
		return "inet_service"
	case TypeICMP:
		return "icmp_type"
	case TypeMark:
		return "mark"
	case TypeICMPv6:
		return "icmpv6_type"
	}
	return "integer"
}

// Len returns the length of a number in bytes, in a packet and in the key of a set.
func (d Datatype) Len() int {
	switch d {
	case TypeInetService:
		return 2
	case TypeMark:
		return 4
	}
	return 1
}

// Max returns the greatest number of the type.
func (d Datatype) Max() uint32 { return 1<<(8*d.Len()) - 1 }

// HostOrder reports whether the kernel loads the number in host byte order. Ranges and elements of interval sets are in
// network byte order for all types, since the kernel compares them as byte strings.
func (d Datatype) HostOrder() bool { return d == TypeMark }

// Append appends the number in network byte order, with the length of the type. Numbers above Max lose their upper
// bytes.
func (d Datatype) Append(buf []byte, n uint32) []byte {
	var b [4]byte
	// The last Len bytes of the big-endian number are the number in a shorter type.
	binary.BigEndian.PutUint32(b[:], n)
	return append(buf, b[4-d.Len():]...)
}

// Text returns the number as nft prints a single number: by name if it has a name.
func (d Datatype) Text(n uint32) string {
	switch d {
	case TypeMark:
		return fmt.Sprintf("0x%08x", n)
	case TypeInetService:
		return strconv.FormatUint(uint64(n), 10)
	}
	if name, ok := symbolsOf(d).byNumber[n]; ok {
		return name
	}
	return strconv.FormatUint(uint64(n), 10)
}

// rangeText returns the range as nft prints it in a match: nft does not replace the ends of a range by names.
func (d Datatype) rangeText(r sets.NumberRange) string {
	if r.From == r.To {
		return d.Text(r.From)
	}
	if d == TypeMark {
		return d.Text(r.From) + "-" + d.Text(r.To)
	}
	return strconv.FormatUint(uint64(r.From), 10) + "-" + strconv.FormatUint(uint64(r.To), 10)
}

// ElementText returns the range as nft prints an element of a set. It differs from the text in a match for marks only: nft
// prints a range of marks as a prefix where it can.
func (d Datatype) ElementText(r sets.NumberRange) string {
	size := uint64(r.To) - uint64(r.From) + 1
	if d == TypeMark && size > 1 && bits.OnesCount64(size) == 1 && uint64(r.From)%size == 0 {
		return fmt.Sprintf("%s/%d", d.Text(r.From), 32-bits.TrailingZeros64(size))
	}
	return d.rangeText(r)
}

// Number returns the number with a name, such as 6 for tcp of TypeInetProto. Ports have no names here: nft takes their
// names from /etc/services of the machine.
func (d Datatype) Number(name string) (uint32, bool) {
	n, ok := symbolsOf(d).byName[name]
	return n, ok
}
