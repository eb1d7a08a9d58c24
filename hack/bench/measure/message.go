package main

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// messages is a buffer of netlink messages, written by hand for the floor. It shares no code with the engine's encoder, so that
// the floor can check the engine.
type messages struct {
	buf   []byte
	start int // of the last message
	// seq numbers the messages from 1, so that an error of the kernel tells which message of the batch is wrong.
	seq uint32
}

// put16 writes a number in the byte order of the machine, as headers of netlink have it. Attributes of nf_tables are
// in network byte order.
func put16(b []byte, v int) { binary.NativeEndian.PutUint16(b, uint16(v)) }

// message appends a message of nf_tables in the family inet; body appends its attributes.
// typ is the type without the subsystem, such as NFT_MSG_NEWRULE. The flag NLM_F_REQUEST is added.
func (m *messages) message(typ, flags int, body func()) {
	m.header(unix.NFNL_SUBSYS_NFTABLES<<8|typ, flags, unix.NFPROTO_INET, 0, body)
}

// header appends struct nlmsghdr and struct nfgenmsg, then the attributes of body, and fills in the length:
//
//	0       4     6      8    12    16      17       18      20
//	length  type  flags  seq  port  family  version  res_id  attributes …
func (m *messages) header(typ, flags int, family byte, resID uint16, body func()) {
	m.start = len(m.buf)
	m.seq++
	m.buf = append(m.buf, make([]byte, unix.SizeofNlMsghdr+4)...)
	h := m.buf[m.start:]
	put16(h[4:], typ)
	put16(h[6:], unix.NLM_F_REQUEST|flags)
	binary.NativeEndian.PutUint32(h[8:], m.seq)
	h[16] = family
	binary.BigEndian.PutUint16(h[18:], resID)
	body()
	binary.NativeEndian.PutUint32(m.buf[m.start:], uint32(len(m.buf)-m.start))
}

// batch appends a batch with the messages that body appends. Only the last message asks for an acknowledgement.
// So a batch without an error has a single answer, which a single system call reads. If the kernel refuses a message,
// it answers that message with an error, whatever its flags.
func (m *messages) batch(body func()) {
	control := func(typ int) { m.header(typ, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, func() {}) }
	control(unix.NFNL_MSG_BATCH_BEGIN)
	// body must append at least a message, since start is the last message.
	body()
	flags := m.buf[m.start+6:]
	put16(flags, int(binary.NativeEndian.Uint16(flags))|unix.NLM_F_ACK)
	control(unix.NFNL_MSG_BATCH_END)
}

// attr appends an attribute that holds the bytes.
// typ may have the flag NLA_F_NESTED for an attribute whose bytes are attributes.
func (m *messages) attr(typ int, value ...byte) {
	m.nest(typ, func() { m.buf = append(m.buf, value...) })
}

// text appends a string attribute with the final zero that the kernel expects.
func (m *messages) text(typ int, s string) { m.attr(typ, append([]byte(s), 0)...) }

// u32 and u64 append a number in network byte order.
func (m *messages) u32(typ, v int) {
	m.attr(typ, binary.BigEndian.AppendUint32(nil, uint32(v))...)
}

func (m *messages) u64(typ int, v uint64) {
	m.attr(typ, binary.BigEndian.AppendUint64(nil, v)...)
}

// nest appends an attribute that holds the attributes that body appends. Its length excludes padding.
// The attribute has 2 bytes of length, 2 bytes of type, the content, and zeros up to a multiple of 4.
func (m *messages) nest(typ int, body func()) {
	at := len(m.buf)
	m.buf = append(m.buf, 0, 0, 0, 0)
	body()
	put16(m.buf[at:], len(m.buf)-at)
	put16(m.buf[at+2:], typ)
	for len(m.buf)%4 != 0 {
		m.buf = append(m.buf, 0)
	}
}

// eachMessage walks received messages.
// body starts behind struct nlmsghdr. The walk ends silently at a message that is cut off.
func eachMessage(b []byte, visit func(typ uint16, seq uint32, body []byte)) {
	for len(b) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.SizeofNlMsghdr || length > len(b) {
			return
		}
		visit(binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[unix.SizeofNlMsghdr:length])
		b = b[min((length+3)&^3, len(b)):]
	}
}

// attrsOf returns the attributes behind struct nfgenmsg.
// Nested attributes stay bytes. The values point into body. If a type occurs twice, the last attribute counts.
func attrsOf(body []byte) map[uint16][]byte {
	attrs := map[uint16][]byte{}
	for b := body[4:]; len(b) >= 4; {
		length := int(binary.NativeEndian.Uint16(b))
		if length < 4 || length > len(b) {
			break
		}
		attrs[binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED] = b[4:length]
		b = b[min((length+3)&^3, len(b)):]
	}
	return attrs
}
