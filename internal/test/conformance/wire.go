package conformance

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// The packets on the wire. Each packet carries the number of its probe in a field of its protocol:
//
//	SYN, SYN-ACK          the sequence number; the answer acknowledges the number + 1
//	segment               the payload
//	UDP, echo request     the payload
//	SCTP INIT             the initiate tag
//	SCTP heartbeat        the information
//	ICMP error            the unused field behind the checksum
//	marker                an option of the router solicitation

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

// castagnoli is the table of CRC32c, the checksum of SCTP (RFC 9260, appendix A).
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendPacket appends the first packet of a connection to b, from its IP header on. For ICMP it is an echo request
// with the source port as its identifier.
func appendPacket(b []byte, from, to netip.Addr, proto oracle.Protocol, sport, dport uint16, id uint32) []byte {
	start := len(b)
	b = appendIPHeader(b, from, to, proto.Number(to))
	payload := len(b)
	switch proto {
	case oracle.TCP:
		b = appendPorts(b, sport, dport)
		b = binary.BigEndian.AppendUint32(b, id)
		b = append(b, 0, 0, 0, 0, 5<<4, tcpSYN, 0xff, 0xff, 0, 0, 0, 0)
		putChecksum(b[payload:], 16, from, to, unix.IPPROTO_TCP)
	case oracle.UDP:
		b = appendPorts(b, sport, dport)
		// The length of the datagram is 12: the header and the number.
		b = append(b, 0, 12, 0, 0)
		b = binary.BigEndian.AppendUint32(b, id)
		putChecksum(b[payload:], 6, from, to, unix.IPPROTO_UDP)
	case oracle.SCTP:
		b = appendPorts(b, sport, dport)
		// The verification tag of an INIT is 0. The chunk has the type, flags, its length of 20, and then the initiate
		// tag.
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, sctpInit, 0, 0, 20)
		b = binary.BigEndian.AppendUint32(b, id)
		// The window is 64 KiB; one stream in each direction; the initial TSN is 1.
		b = append(b, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1)
		binary.LittleEndian.PutUint32(b[payload+8:], crc32.Checksum(b[payload:], castagnoli))
	case oracle.ICMP:
		b = appendEcho(b, from, to, sport, id)
	}
	putLength(b[start:], to)
	return b
}

// repeated is the length of the payload of a segment: the sender repeats so many bytes that were acknowledged.
const repeated = 4

// appendSegment appends a TCP segment of an open connection. Its payload is the number of the probe: the receiver
// discards the bytes as a duplicate.
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

// The length of a heartbeat packet behind its IP header, and of the parameter in it.
const (
	heartbeatLength    = 16 + heartbeatParameter
	heartbeatParameter = 64
)

// appendHeartbeat appends a heartbeat of an open SCTP connection. Its information is the number of the probe; the other
// end sends the information back. The kernel discards that answer. It would end the connection if the answer were
// shorter than its own.
func appendHeartbeat(b []byte, from, to netip.Addr, sport, dport uint16, tag, id uint32) []byte {
	start := len(b)
	b = appendIPHeader(b, from, to, unix.IPPROTO_SCTP)
	packet := len(b)
	b = appendPorts(b, sport, dport)
	b = binary.BigEndian.AppendUint32(b, tag)
	// The chunk HEARTBEAT with its length, and the parameter Heartbeat Information (type 1) with its length.
	b = append(b, 0, 0, 0, 0, sctpHeartbeat, 0, 0, 4+heartbeatParameter, 0, 1, 0, heartbeatParameter)
	b = binary.BigEndian.AppendUint32(b, id)
	b = append(b, make([]byte, heartbeatLength-24)...)
	binary.LittleEndian.PutUint32(b[packet+8:], crc32.Checksum(b[packet:], castagnoli))
	putLength(b[start:], to)
	return b
}

// appendPorts appends the source port and the destination port, the first four bytes of TCP, UDP and SCTP.
func appendPorts(b []byte, sport, dport uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, sport), dport)
}

// appendEcho appends an echo request. Its identifier takes the place of a source port.
// The number of the probe is its payload.
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

// appendMarker appends a router solicitation to all nodes on the link. The agent's rules always let it pass. The number
// is in an option of type 253, which is for experiments (RFC 4727): receivers must ignore it (RFC 4861, section 4.6).
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

// appendIPHeader appends an IP header without options and without a length. The hop limit of IPv6 is 255, because
// receivers discard neighbor discovery with any other hop limit.
func appendIPHeader(b []byte, from, to netip.Addr, proto uint8) []byte {
	if to.Is4() {
		b = append(b, 4<<4|ipv4Header/4, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0) // the kernel fills in the checksum
	} else {
		b = append(b, 6<<4, 0, 0, 0, 0, 0, proto, 255)
	}
	b = append(b, from.AsSlice()...)
	return append(b, to.AsSlice()...)
}

// putLength fills in the length in the IP header. IPv4 counts the header, IPv6 does not.
func putLength(packet []byte, to netip.Addr) {
	if to.Is4() {
		binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
		return
	}
	binary.BigEndian.PutUint16(packet[4:], uint16(len(packet)-ipv6Header))
}

// putICMPChecksum fills in the checksum of an ICMP message. Only ICMPv6 has a pseudo header.
func putICMPChecksum(message []byte, from, to netip.Addr) {
	if to.Is4() {
		binary.BigEndian.PutUint16(message[2:], ^fold(sum(0, message)))
		return
	}
	putChecksum(message, 2, from, to, unix.IPPROTO_ICMPV6)
}

// putChecksum fills in the Internet checksum with its pseudo header (RFC 1071) at an offset. The field must be zero
// before.
func putChecksum(segment []byte, offset int, from, to netip.Addr, proto uint8) {
	s := sum(sum(0, from.AsSlice()), to.AsSlice()) + uint32(proto) + uint32(len(segment))
	check := ^fold(sum(s, segment))
	// In UDP, 0 means that there is no checksum (RFC 768).
	if check == 0 && proto == unix.IPPROTO_UDP {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(segment[offset:], check)
}

// sum adds the 16-bit words of b to a sum that fold completes. An odd byte at the end counts as the upper half of a
// word.
func sum(s uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

// fold adds the carries of a sum back into 16 bits.
// A checksum is the complement of the result.
func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// sighting is the information in a packet that arrived.
// The zero value is a packet that the prober did not send.
type sighting struct {
	kind sightingKind
	// The number of the probe or marker; for an INIT or INIT ACK of a real connection, its initiate tag.
	id   uint32
	port uint16 // the source port, of SCTP only
}

// sightingKind is the kind of a received packet.
type sightingKind uint8

const (
	nothing  sightingKind = iota // not a packet of the prober
	arrival                      // a packet of a probe
	answered                     // a SYN-ACK: the answer to the SYN of a probe
	accepted                     // an INIT ACK: the answer of the other end to an INIT
	marked                       // a marker
)

// sight reads a packet from behind its IP header. Packets that the prober does not send are nothing: real connections
// and neighbor discovery are in the same namespaces.
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
