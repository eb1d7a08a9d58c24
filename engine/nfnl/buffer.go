package nfnl

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Buffer is a flat buffer of netlink messages (linux/netlink.h):
//
//	Begin ─► header │ attribute │ nest ─► attribute │ attribute … │ …  ◄─ End
//	                              Nest                    EndNest
//
// Headers are in host byte order, attributes in network byte order, and each part is padded to 4 bytes. End and EndNest fill
// in the lengths, so nothing is copied. A Buffer that is used again after Reset does not allocate.
type Buffer struct {
	// buf holds complete messages, and perhaps an open message at its end. Its length is always a multiple of 4 between
	// two attributes.
	buf   []byte
	seq   uint32 // of the last message
	start int    // offset of the last message
}

// Sizes of headers, bytes. Each is a multiple of 4, so no padding follows a header.
const (
	messageHeader = unix.SizeofNlMsghdr
	familyHeader  = 4 // struct nfgenmsg
	attrHeader    = unix.SizeofNlAttr
)

// Reset empties the buffer.
func (b *Buffer) Reset() { b.buf, b.seq, b.start = b.buf[:0], 0, 0 }

// Bytes returns the messages. They are valid until the next change of the buffer.
func (b *Buffer) Bytes() []byte { return b.buf }

// Len returns the length of all messages, bytes.
func (b *Buffer) Len() int { return len(b.buf) }

// Sequence returns the sequence number of the last message.
func (b *Buffer) Sequence() uint32 { return b.seq }

// Begin opens a message (struct nlmsghdr, then struct nfgenmsg) with the next sequence number, from 1. The type holds the
// subsystem in its high byte.
func (b *Buffer) Begin(typ, flags uint16, family byte, resID uint16) {
	b.beginHeader(typ, flags)
	b.buf = append(b.buf, family, unix.NFNETLINK_V0)
	b.buf = binary.BigEndian.AppendUint16(b.buf, resID)
}

// beginHeader writes struct nlmsghdr.
func (b *Buffer) beginHeader(typ, flags uint16) {
	b.start = len(b.buf)
	b.seq++
	var header [messageHeader]byte
	binary.NativeEndian.PutUint16(header[4:], typ)
	binary.NativeEndian.PutUint16(header[6:], unix.NLM_F_REQUEST|flags)
	binary.NativeEndian.PutUint32(header[8:], b.seq)
	b.buf = append(b.buf, header[:]...)
}

// End closes the open message: it writes the length (nlmsg_len), which is known only now.
func (b *Buffer) End() {
	binary.NativeEndian.PutUint32(b.buf[b.start:], uint32(len(b.buf)-b.start))
}

// isDump reports whether the last message asks for a dump. NLM_F_DUMP consists of two bits, and a single bit of them
// has another meaning for requests that create something (NLM_F_ROOT is NLM_F_REPLACE), so both must be set.
func (b *Buffer) isDump() bool {
	return len(b.buf) > b.start && binary.NativeEndian.Uint16(b.buf[b.start+6:])&unix.NLM_F_DUMP == unix.NLM_F_DUMP
}

// OrFlags adds flags to the last message.
func (b *Buffer) OrFlags(flags uint16) {
	at := b.buf[b.start+6:]
	binary.NativeEndian.PutUint16(at, binary.NativeEndian.Uint16(at)|flags)
}

// attr writes the header of an attribute (struct nlattr) whose value has the length. The length in the header counts
// the header and the value, but not the padding behind the value.
func (b *Buffer) attr(typ uint16, length int) {
	var header [attrHeader]byte
	binary.NativeEndian.PutUint16(header[0:], uint16(attrHeader+length))
	binary.NativeEndian.PutUint16(header[2:], typ)
	b.buf = append(b.buf, header[:]...)
}

// pad fills up to the next multiple of 4 bytes.
func (b *Buffer) pad() {
	for len(b.buf)%unix.NLA_ALIGNTO != 0 {
		b.buf = append(b.buf, 0)
	}
}

// Data writes an attribute of bytes as they are: the caller chooses their order.
func (b *Buffer) Data(typ uint16, data []byte) {
	b.attr(typ, len(data))
	b.Raw(data)
	b.pad()
}

// Raw writes bytes as they are, without a header, such as attributes that were encoded before. Only the last attribute
// of a nest may have a length that is no multiple of 4.
func (b *Buffer) Raw(data []byte) { b.buf = append(b.buf, data...) }

// Text writes an attribute of a string with a NUL at its end.
func (b *Buffer) Text(typ uint16, s string) {
	b.attr(typ, len(s)+1)
	b.buf = append(b.buf, s...)
	b.buf = append(b.buf, 0)
	b.pad()
}

// Uint8 writes an attribute of a single byte.
func (b *Buffer) Uint8(typ uint16, v uint8) {
	b.attr(typ, 1)
	b.buf = append(b.buf, v)
	b.pad()
}

// Uint16 writes an attribute of two bytes, big-endian.
func (b *Buffer) Uint16(typ uint16, v uint16) {
	b.attr(typ, 2)
	b.buf = binary.BigEndian.AppendUint16(b.buf, v)
	b.pad()
}

// Uint32 writes an attribute of four bytes, big-endian. Neither this nor Uint64 needs padding.
func (b *Buffer) Uint32(typ uint16, v uint32) {
	b.attr(typ, 4)
	b.buf = binary.BigEndian.AppendUint32(b.buf, v)
}

// Uint64 writes an attribute of eight bytes, big-endian.
func (b *Buffer) Uint64(typ uint16, v uint64) {
	b.attr(typ, 8)
	b.buf = binary.BigEndian.AppendUint64(b.buf, v)
}

// Nest opens an attribute that holds other attributes, and returns the argument for EndNest. A nest has at most 65,535 bytes
// with its header (nla_len is a u16), so a caller that writes a long list checks NestLen.
func (b *Buffer) Nest(typ uint16) (at int) {
	at = len(b.buf)
	b.attr(unix.NLA_F_NESTED|typ, 0)
	return at
}

// NestLen returns the length of an open nest up to now, bytes.
func (b *Buffer) NestLen(at int) int { return len(b.buf) - at }

// EndNest closes a nest: it writes the length, which is known only now. at is the result of Nest.
func (b *Buffer) EndNest(at int) {
	binary.NativeEndian.PutUint16(b.buf[at:], uint16(len(b.buf)-at))
}
