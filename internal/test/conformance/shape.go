package conformance

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// shapesOf returns the shapes that packets of a protocol may have.
func shapesOf(proto oracle.Protocol) []oracle.Shape {
	switch proto {
	case oracle.UDP:
		return []oracle.Shape{oracle.Plain, oracle.InFragments, oracle.WithOptions}
	case oracle.ICMP:
		return []oracle.Shape{oracle.Plain, oracle.AsError}
	}
	return []oracle.Shape{oracle.Plain}
}

// someShape chooses a shape. Most packets are plain.
// r decides, so that a case chooses the same shapes when it is repeated.
func someShape(r *rand.Rand, proto oracle.Protocol) oracle.Shape {
	if r.IntN(100) < 60 {
		return oracle.Plain
	}
	shapes := shapesOf(proto)
	return shapes[r.IntN(len(shapes))]
}

// appendPacket appends the packet of a probe to b. Fragments are cut from it later.
// sport is the source port of this send, id the number of the probe.
func (p *Probe) appendPacket(b []byte, sport uint16, id uint32) []byte {
	from, to := p.From.addr, p.To.addr
	switch {
	case p.shape == oracle.AsError && p.flow != nil:
		return appendError(b, from, to, p.flow.appendPacket(nil, false, id), id)
	case p.shape == oracle.AsError: // no packet was sent that the error is about
		return appendError(b, from, to, appendPacket(nil, to, from, oracle.UDP, sport, sport, id), id)
	case p.flow != nil:
		return p.flow.appendPacket(b, p.reply, id)
	case p.shape == oracle.WithOptions:
		return insertOptions(appendPacket(b, from, to, p.Proto, sport, p.Port, id), to)
	}
	return appendPacket(b, from, to, p.Proto, sport, p.Port, id)
}

// appendError appends an ICMP error "destination unreachable" about another packet (RFC 792, RFC 4443). It quotes the
// IP header of the packet and 8 bytes behind it, which is enough for connection tracking.
func appendError(b []byte, from, to netip.Addr, about []byte, id uint32) []byte {
	start := len(b)
	b = appendIPHeader(b, from, to, oracle.ICMP.Number(to))
	message, header := len(b), ipv4Header
	if to.Is4() {
		b = append(b, icmpUnreachable, icmpHostUnreachable, 0, 0)
		// The kernel fills in the checksum of a packet that it sends, but not of a quoted packet.
		binary.BigEndian.PutUint16(about[10:], ^fold(sum(0, about[:ipv4Header])))
	} else {
		header = ipv6Header
		b = append(b, icmpv6Unreachable, icmpv6AddrUnreachable, 0, 0)
	}
	b = binary.BigEndian.AppendUint32(b, id) // receivers ignore this field
	b = append(b, about[:header+8]...)
	putICMPChecksum(b[message:], from, to)
	putLength(b[start:], to)
	return b
}

// insertOptions puts four no-operation options into the header of IPv4, or a destination options header behind the
// header of IPv6.
func insertOptions(packet []byte, to netip.Addr) []byte {
	var out []byte
	if to.Is4() {
		out = append(out, packet[:ipv4Header]...)
		out[0]++ // the length of the header, in units of four bytes
		out = append(out, 1, 1, 1, 1)
		out = append(out, packet[ipv4Header:]...)
	} else {
		out = append(out, packet[:ipv6Header]...)
		out[6] = unix.IPPROTO_DSTOPTS
		// The header: next header, length 0 (8 bytes), and the option PadN with four bytes of padding (RFC 8200,
		// section 4.2).
		out = append(out, packet[6], 0, 1, 4, 0, 0, 0, 0)
		out = append(out, packet[ipv6Header:]...)
	}
	putLength(out, to)
	return out
}

// firstFragment is the length of the first fragment behind the IP header: the UDP header, so that only the first
// fragment has ports.
const firstFragment = 8

// fragments cuts a datagram of UDP behind its header, into two IP packets.
// The numbers of both fragments are the same, so that the receiver joins them.
func fragments(packet []byte, id uint32) [][]byte {
	// The offset counts bytes. IPv4 has it in units of eight bytes with flags in the upper three bits, IPv6 has it in
	// place, with flags in the lower three bits.
	cut := func(from, to int, offset uint16, more bool) []byte {
		if packet[0]>>4 == 4 {
			out := append([]byte{}, packet[:ipv4Header]...)
			out = append(out, packet[ipv4Header+from:ipv4Header+to]...)
			binary.BigEndian.PutUint16(out[4:], max(uint16(id), 1)) // the kernel would choose a number in place of 0
			flags := offset / 8
			if more {
				flags |= 1 << 13
			}
			binary.BigEndian.PutUint16(out[6:], flags)
			binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
			return out
		}
		out := append([]byte{}, packet[:ipv6Header]...)
		out[6] = unix.IPPROTO_FRAGMENT
		if more {
			offset |= 1
		}
		out = append(out, packet[6], 0)
		out = binary.BigEndian.AppendUint16(out, offset)
		out = binary.BigEndian.AppendUint32(out, id)
		out = append(out, packet[ipv6Header+from:ipv6Header+to]...)
		binary.BigEndian.PutUint16(out[4:], uint16(len(out)-ipv6Header))
		return out
	}
	header := ipv4Header
	if packet[0]>>4 == 6 {
		header = ipv6Header
	}
	return [][]byte{cut(0, firstFragment, 0, true), cut(firstFragment, len(packet)-header, firstFragment, false)}
}
