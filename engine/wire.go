package engine

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// wire is a flat buffer of netlink messages (linux/netlink.h): headers in host byte order, nf_tables attributes in
// network byte order, everything padded to 4 bytes. Lengths are filled in when a message or a nest ends, so that
// nothing is copied. It is used again for the next batch and then does not allocate.
type wire struct {
	buf []byte
	seq uint32
	msg int // where the message that is open starts
}

const (
	nlmsgHdrLen = unix.SizeofNlMsghdr
	nfgenmsgLen = 4
	nlattrLen   = unix.SizeofNlAttr
)

// nftMessage is what a message type of nf_tables has in its high byte.
const nftMessage = unix.NFNL_SUBSYS_NFTABLES << 8

func (w *wire) reset() { w.buf, w.seq, w.msg = w.buf[:0], 0, 0 }

// begin opens a message of nfnetlink (struct nlmsghdr, then struct nfgenmsg) with the next sequence number.
func (w *wire) begin(typ uint16, flags uint16, family byte, resID uint16) {
	w.msg = len(w.buf)
	w.seq++
	var hdr [nlmsgHdrLen + nfgenmsgLen]byte
	binary.NativeEndian.PutUint16(hdr[4:], typ)
	binary.NativeEndian.PutUint16(hdr[6:], unix.NLM_F_REQUEST|flags)
	binary.NativeEndian.PutUint32(hdr[8:], w.seq)
	hdr[16] = family
	hdr[17] = unix.NFNETLINK_V0
	binary.BigEndian.PutUint16(hdr[18:], resID)
	w.buf = append(w.buf, hdr[:]...)
}

// beginNFT opens a message of nf_tables for the family inet. typ is an NFT_MSG_ number.
func (w *wire) beginNFT(typ uint16, flags uint16) {
	w.begin(nftMessage|typ, flags, unix.NFPROTO_INET, 0)
}

func (w *wire) end() {
	binary.NativeEndian.PutUint32(w.buf[w.msg:], uint32(len(w.buf)-w.msg))
}

// orFlags adds flags to the message that was begun last.
func (w *wire) orFlags(flags uint16) {
	at := w.buf[w.msg+6:]
	binary.NativeEndian.PutUint16(at, binary.NativeEndian.Uint16(at)|flags)
}

func (w *wire) attr(typ uint16, length int) {
	var hdr [nlattrLen]byte
	binary.NativeEndian.PutUint16(hdr[0:], uint16(nlattrLen+length))
	binary.NativeEndian.PutUint16(hdr[2:], typ)
	w.buf = append(w.buf, hdr[:]...)
}

func (w *wire) pad() {
	for len(w.buf)%unix.NLA_ALIGNTO != 0 {
		w.buf = append(w.buf, 0)
	}
}

func (w *wire) bytes(typ uint16, b []byte) {
	w.attr(typ, len(b))
	w.buf = append(w.buf, b...)
	w.pad()
}

// string writes s with the NUL that nf_tables wants.
func (w *wire) string(typ uint16, s string) {
	w.attr(typ, len(s)+1)
	w.buf = append(w.buf, s...)
	w.buf = append(w.buf, 0)
	w.pad()
}

func (w *wire) uint32(typ uint16, v uint32) {
	w.attr(typ, 4)
	w.buf = binary.BigEndian.AppendUint32(w.buf, v)
}

func (w *wire) uint64(typ uint16, v uint64) {
	w.attr(typ, 8)
	w.buf = binary.BigEndian.AppendUint64(w.buf, v)
}

// nest opens an attribute that holds others and returns what endNest wants. A nest is at most 65,535 bytes, its header
// included (nla_len is a u16); who fills one with a list watches nestLen.
func (w *wire) nest(typ uint16) int {
	at := len(w.buf)
	w.attr(unix.NLA_F_NESTED|typ, 0)
	return at
}

func (w *wire) nestLen(at int) int { return len(w.buf) - at }

func (w *wire) endNest(at int) {
	binary.NativeEndian.PutUint16(w.buf[at:], uint16(len(w.buf)-at))
}

// netlinkMessage is a message that was received.
type netlinkMessage struct {
	typ, flags uint16
	seq        uint32
	body       []byte // behind struct nlmsghdr
}

// eachMessage walks the messages of one datagram.
func eachMessage(b []byte, visit func(netlinkMessage) error) error {
	for len(b) >= nlmsgHdrLen {
		length := int(binary.NativeEndian.Uint32(b))
		if length < nlmsgHdrLen || length > len(b) {
			return fmt.Errorf("netlink message of %d bytes in %d", length, len(b))
		}
		m := netlinkMessage{
			typ:   binary.NativeEndian.Uint16(b[4:]),
			flags: binary.NativeEndian.Uint16(b[6:]),
			seq:   binary.NativeEndian.Uint32(b[8:]),
			body:  b[nlmsgHdrLen:length],
		}
		if err := visit(m); err != nil {
			return err
		}
		b = b[min(len(b), align(length)):]
	}
	return nil
}

// eachAttr walks the attributes behind struct nfgenmsg.
func (m netlinkMessage) eachAttr(visit func(typ uint16, value []byte)) error {
	return eachAttr(m.body[min(len(m.body), nfgenmsgLen):], visit)
}

// eachAttr walks a list of attributes (struct nlattr); the type is without its flags.
func eachAttr(b []byte, visit func(typ uint16, value []byte)) error {
	for len(b) >= nlattrLen {
		typ, value, rest, err := cutAttr(b)
		if err != nil {
			return err
		}
		visit(typ, value)
		b = rest
	}
	return nil
}

// cutAttr takes the first attribute off a list that has one.
func cutAttr(b []byte) (typ uint16, value, rest []byte, err error) {
	length := int(binary.NativeEndian.Uint16(b))
	if length < nlattrLen || length > len(b) {
		return 0, nil, nil, fmt.Errorf("netlink attribute of %d bytes in %d", length, len(b))
	}
	typ = binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
	return typ, b[nlattrLen:length], b[min(len(b), align(length)):], nil
}

// align rounds up to the four bytes of NLMSG_ALIGNTO and NLA_ALIGNTO.
func align(n int) int { return (n + 3) &^ 3 }
