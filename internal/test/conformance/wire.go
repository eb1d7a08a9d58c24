package conformance

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The packets on the wire. Each carries the number of its probe where the protocol has room for a number: the
// sequence number of a SYN, the payload of a datagram and of an echo request, the initiate tag of an SCTP INIT.

const (
	ipv4Header = 20 // RFC 791, without options
	ipv6Header = 40 // RFC 8200

	tcpSYN = 0x02
	tcpPSH = 0x08
	tcpACK = 0x10

	sctpInit, sctpInitAck, sctpHeartbeat = 1, 2, 4 // types of chunks, RFC 9260

	icmpEcho   = 8
	icmpv6Echo = 128

	icmpUnreachable, icmpHostUnreachable     = 3, 1 // type and code
	icmpv6Unreachable, icmpv6AddrUnreachable = 1, 3
	icmpv6RS                                 = 133 // router solicitation, RFC 4861
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendPacket appends the packet of a probe, from its IP header on.
func appendPacket(b []byte, from, to netip.Addr, proto Protocol, sport, dport uint16, id uint32) []byte {
	start := len(b)
	b = appendIPHeader(b, from, to, proto.number(to))
	payload := len(b)
	switch proto {
	case TCP:
		b = appendPorts(b, sport, dport)
		b = binary.BigEndian.AppendUint32(b, id)
		b = append(b, 0, 0, 0, 0, 5<<4, tcpSYN, 0xff, 0xff, 0, 0, 0, 0)
		putChecksum(b[payload:], 16, from, to, unix.IPPROTO_TCP)
	case UDP:
		b = appendPorts(b, sport, dport)
		b = append(b, 0, 12, 0, 0)
		b = binary.BigEndian.AppendUint32(b, id)
		putChecksum(b[payload:], 6, from, to, unix.IPPROTO_UDP)
	case SCTP:
		b = appendPorts(b, sport, dport)
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, sctpInit, 0, 0, 20)
		b = binary.BigEndian.AppendUint32(b, id)
		b = append(b, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1)
		binary.LittleEndian.PutUint32(b[payload+8:], crc32.Checksum(b[payload:], castagnoli))
	case ICMP:
		b = appendEcho(b, from, to, sport, id)
	}
	putLength(b[start:], to)
	return b
}

// repeated is the number of bytes in a segment of appendSegment.
const repeated = 4

// appendSegment appends a TCP segment of a connection that is open. The number is its payload.
func appendSegment(b []byte, from, to netip.Addr, sport, dport uint16, seq, ack, id uint32) []byte {
	start := len(b)
	b = appendIPHeader(b, from, to, unix.IPPROTO_TCP)
	segment := len(b)
	b = appendPorts(b, sport, dport)
	b = binary.BigEndian.AppendUint32(b, seq)
	b = binary.BigEndian.AppendUint32(b, ack)
	b = append(b, 5<<4, tcpPSH|tcpACK, 0xff, 0xff, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, id)
	putChecksum(b[segment:], 16, from, to, unix.IPPROTO_TCP)
	putLength(b[start:], to)
	return b
}

// The length of a packet of appendHeartbeat behind the IP header, and of the parameter in it.
const (
	heartbeatLength    = 16 + heartbeatParameter
	heartbeatParameter = 64
)

// appendHeartbeat appends a heartbeat of a connection of SCTP that is open. The number is its information, which the other end
// sends back. The kernel discards that answer. It would end the connection if the answer were shorter than its own.
func appendHeartbeat(b []byte, from, to netip.Addr, sport, dport uint16, tag, id uint32) []byte {
	start := len(b)
	b = appendIPHeader(b, from, to, unix.IPPROTO_SCTP)
	packet := len(b)
	b = appendPorts(b, sport, dport)
	b = binary.BigEndian.AppendUint32(b, tag)
	b = append(b, 0, 0, 0, 0, sctpHeartbeat, 0, 0, 4+heartbeatParameter, 0, 1, 0, heartbeatParameter)
	b = binary.BigEndian.AppendUint32(b, id)
	b = append(b, make([]byte, heartbeatLength-24)...)
	binary.LittleEndian.PutUint32(b[packet+8:], crc32.Checksum(b[packet:], castagnoli))
	putLength(b[start:], to)
	return b
}

func appendPorts(b []byte, sport, dport uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, sport), dport)
}

// appendEcho has an identifier where others have a source port.
func appendEcho(b []byte, from, to netip.Addr, ident uint16, id uint32) []byte {
	start := len(b)
	kind := byte(icmpEcho)
	if to.Is6() {
		kind = icmpv6Echo
	}
	b = append(b, kind, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, ident)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint32(b, id)
	putICMPChecksum(b[start:], from, to)
	return b
}

// appendMarker appends a router solicitation, which always passes, to all nodes on the link. An option of a type that
// is not assigned carries the number: receivers must ignore it.
func appendMarker(b []byte, from netip.Addr, id uint32) []byte {
	to := netip.IPv6LinkLocalAllNodes()
	start := len(b)
	b = appendIPHeader(b, from, to, unix.IPPROTO_ICMPV6)
	message := len(b)
	b = append(b, icmpv6RS, 0, 0, 0, 0, 0, 0, 0, 253, 1, 0, 0)
	b = binary.BigEndian.AppendUint32(b, id)
	putICMPChecksum(b[message:], from, to)
	putLength(b[start:], to)
	return b
}

func appendIPHeader(b []byte, from, to netip.Addr, proto uint8) []byte {
	if to.Is4() {
		b = append(b, 4<<4|ipv4Header/4, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0) // the kernel fills in the checksum
	} else {
		b = append(b, 6<<4, 0, 0, 0, 0, 0, proto, 255)
	}
	b = append(b, from.AsSlice()...)
	return append(b, to.AsSlice()...)
}

func putLength(packet []byte, to netip.Addr) {
	if to.Is4() {
		binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
		return
	}
	binary.BigEndian.PutUint16(packet[4:], uint16(len(packet)-ipv6Header))
}

func putICMPChecksum(message []byte, from, to netip.Addr) {
	if to.Is4() {
		binary.BigEndian.PutUint16(message[2:], ^fold(sum(0, message)))
		return
	}
	putChecksum(message, 2, from, to, unix.IPPROTO_ICMPV6)
}

// putChecksum puts the Internet checksum with its pseudo header at an offset that is still zero.
func putChecksum(segment []byte, offset int, from, to netip.Addr, proto uint8) {
	s := sum(sum(0, from.AsSlice()), to.AsSlice()) + uint32(proto) + uint32(len(segment))
	check := ^fold(sum(s, segment))
	if check == 0 && proto == unix.IPPROTO_UDP {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(segment[offset:], check)
}

func sum(s uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// sighting is what a packet that came in says.
type sighting struct {
	kind sightingKind
	id   uint32
	port uint16 // of SCTP: the source port
}

type sightingKind uint8

const (
	nothing  sightingKind = iota // of interest
	arrival                      // of a probe
	answered                     // a SYN was, by a SYN-ACK
	accepted                     // a connection of SCTP was, by an INIT ACK
	marked                       // a marker
)

// sight reads a packet from behind its IP header.
func sight(proto uint8, b []byte) sighting {
	switch {
	case proto == unix.IPPROTO_TCP && len(b) >= 20:
		switch b[13] & 0x3f {
		case tcpSYN:
			return sighting{kind: arrival, id: binary.BigEndian.Uint32(b[4:])}
		case tcpSYN | tcpACK:
			return sighting{kind: answered, id: binary.BigEndian.Uint32(b[8:]) - 1}
		case tcpPSH | tcpACK:
			if len(b) == 20+repeated {
				return sighting{kind: arrival, id: binary.BigEndian.Uint32(b[20:])}
			}
		}
	case proto == unix.IPPROTO_UDP && len(b) == 12:
		return sighting{kind: arrival, id: binary.BigEndian.Uint32(b[8:])}
	case proto == unix.IPPROTO_SCTP && len(b) >= 32 && b[12] == sctpInit:
		return sighting{arrival, binary.BigEndian.Uint32(b[16:]), binary.BigEndian.Uint16(b)}
	case proto == unix.IPPROTO_SCTP && len(b) >= 32 && b[12] == sctpInitAck:
		return sighting{accepted, binary.BigEndian.Uint32(b[16:]), binary.BigEndian.Uint16(b)}
	case proto == unix.IPPROTO_SCTP && len(b) == heartbeatLength && b[12] == sctpHeartbeat:
		return sighting{kind: arrival, id: binary.BigEndian.Uint32(b[20:])}
	case proto == unix.IPPROTO_ICMP && len(b) == 12 && b[0] == icmpEcho,
		proto == unix.IPPROTO_ICMPV6 && len(b) == 12 && b[0] == icmpv6Echo:
		return sighting{kind: arrival, id: binary.BigEndian.Uint32(b[8:])}
	case proto == unix.IPPROTO_ICMP && len(b) == 8+ipv4Header+8 && b[0] == icmpUnreachable,
		proto == unix.IPPROTO_ICMPV6 && len(b) == 8+ipv6Header+8 && b[0] == icmpv6Unreachable:
		return sighting{kind: arrival, id: binary.BigEndian.Uint32(b[4:])}
	case proto == unix.IPPROTO_ICMPV6 && len(b) == 16 && b[0] == icmpv6RS && b[8] == 253:
		return sighting{kind: marked, id: binary.BigEndian.Uint32(b[12:])}
	}
	return sighting{}
}
