package nfnl

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// Answer is a message from the kernel, as the socket delivered it: an answer to a request, or the acknowledgement or
// error of a request (NLMSG_ERROR).
type Answer struct {
	// Type has the subsystem in its high byte for nfnetlink, such as NFTables. Flags are the NLM_F_ flags.
	Type, Flags uint16
	Sequence    uint32 // of the message that it answers
	Body        []byte // behind struct nlmsghdr
}

// EachMessage calls visit with each message of a datagram. It stops at the first error of visit. The body of an Answer is a
// part of the datagram, so visit must copy the bytes that it keeps.
func EachMessage(datagram []byte, visit func(Answer) error) error {
	for b := datagram; len(b) >= messageHeader; {
		length := int(binary.NativeEndian.Uint32(b))
		if length < messageHeader || length > len(b) {
			return fmt.Errorf("netlink message of %d bytes in %d", length, len(b))
		}
		m := Answer{
			Type:     binary.NativeEndian.Uint16(b[4:]),
			Flags:    binary.NativeEndian.Uint16(b[6:]),
			Sequence: binary.NativeEndian.Uint32(b[8:]),
			Body:     b[messageHeader:length],
		}
		if err := visit(m); err != nil {
			return err
		}
		b = b[min(len(b), align(length)):]
	}
	return nil
}

// Content returns the attributes behind struct nfgenmsg.
func (m Answer) Content() []byte { return m.Body[min(len(m.Body), familyHeader):] }

// EachAttr calls visit with each attribute of a list (struct nlattr). The type is without its flags NLA_F_NESTED and
// NLA_F_NET_BYTEORDER; the value is a part of the list.
func EachAttr(list []byte, visit func(typ uint16, value []byte)) error {
	for len(list) >= attrHeader {
		typ, value, rest, err := CutAttr(list)
		if err != nil {
			return err
		}
		visit(typ, value)
		list = rest
	}
	return nil
}

// CutAttr returns the first attribute of a list, and the rest of the list. A caller in a hot path uses it in place of EachAttr,
// which needs a closure.
func CutAttr(list []byte) (typ uint16, value, rest []byte, err error) {
	if len(list) < attrHeader {
		return 0, nil, nil, fmt.Errorf("netlink attribute of %d bytes", len(list))
	}
	length := int(binary.NativeEndian.Uint16(list))
	if length < attrHeader || length > len(list) {
		return 0, nil, nil, fmt.Errorf("netlink attribute of %d bytes in %d", length, len(list))
	}
	typ = binary.NativeEndian.Uint16(list[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
	return typ, list[attrHeader:length], list[min(len(list), align(length)):], nil
}

// align rounds up to the four bytes of NLMSG_ALIGNTO and NLA_ALIGNTO.
func align(n int) int { return (n + 3) &^ 3 }

// Attrs holds the values of attributes by type, without their headers. If a list has a type twice, the last value
// counts. A type that is missing reads as the zero value, so a caller that must tell "missing" from "0" looks into the
// map. The integers of nfnetlink are big-endian; the methods convert them.
type Attrs map[uint16][]byte

// ParseAttrs reads a list of attributes. The values are parts of the list.
func ParseAttrs(list []byte) (Attrs, error) {
	a := Attrs{}
	err := EachAttr(list, func(typ uint16, value []byte) { a[typ] = value })
	return a, err
}

// Text returns a string without its NUL.
func (a Attrs) Text(typ uint16) string { return strings.TrimRight(string(a[typ]), "\x00") }

// Uint16 returns 0 for an attribute that is missing or too short.
func (a Attrs) Uint16(typ uint16) uint16 {
	if len(a[typ]) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(a[typ])
}

// Uint32 returns 0 for an attribute that is missing or too short.
func (a Attrs) Uint32(typ uint16) uint32 {
	if len(a[typ]) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a[typ])
}

// Uint64 returns 0 for an attribute that is missing or too short.
func (a Attrs) Uint64(typ uint16) uint64 {
	if len(a[typ]) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(a[typ])
}

// UserData returns the text of the entry with the type in userdata, or nothing. nft writes an entry as type, length (a byte
// each) and value. userdata.Get of google/nftables panics on an entry that is cut off, and root in a pod can make such an
// entry.
func UserData(data []byte, typ userdata.Type) string {
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		value := data[2 : 2+int(data[1])]
		if userdata.Type(data[0]) == typ {
			return strings.TrimRight(string(value), "\x00")
		}
		data = data[2+len(value):]
	}
	return ""
}
