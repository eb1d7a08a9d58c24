package packet

import (
	"encoding/binary"
	"net/netip"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/uapi"
)

// Headers are the fields of the network and transport headers that policies depend on. Source is invalid if the network
// header was too short.
type Headers struct {
	// Fields that a packet lacks, or that are cut off, are zero, and HasPorts or HasType is false.
	Source, Destination         netip.Addr
	Protocol                    uint8
	HasPorts                    bool // SourcePort and DestinationPort are known
	SourcePort, DestinationPort uint16
	HasType                     bool  // Type and Code are known
	Type, Code                  uint8 // of ICMP or ICMPv6
}

// Parse reads a packet from its network header on. The packet may be cut off anywhere.
func Parse(b []byte) Headers {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		return ParseHeaders(b, tail(b, int(b[0]&0xf)*4))
	case len(b) >= 40 && b[0]>>4 == 6:
		next, at := skipExtensions(b)
		h := ParseHeaders(b, nil)
		h.Protocol = next
		h.addTransport(tail(b, at))
		return h
	}
	return Headers{}
}

// tail returns the bytes from an offset on, none if the packet is cut off before.
func tail(b []byte, from int) []byte { return b[min(len(b), from):] }

// skipExtensions returns the protocol of an IPv6 packet, and where its header starts, behind the extension headers of RFC 8200,
// section 4. The packet must have 40 bytes. If it is cut off, the protocol is that of the first header that is missing.
func skipExtensions(b []byte) (protocol uint8, at int) {
	protocol, at = b[6], 40
	for at+8 <= len(b) {
		switch protocol {
		case uapi.IPPROTO_HOPOPTS, uapi.IPPROTO_ROUTING, uapi.IPPROTO_DSTOPTS:
			protocol, at = b[at], at+8+int(b[at+1])*8
		case uapi.IPPROTO_FRAGMENT:
			// Only the first fragment has the transport header.
			if binary.BigEndian.Uint16(b[at+2:])>>3 != 0 {
				return b[at], len(b)
			}
			protocol, at = b[at], at+8
		default:
			return protocol, at
		}
	}
	return protocol, at
}

// ParseHeaders reads a network header (RFC 791 section 3.1, RFC 8200 section 3) and a transport header. The kernel gives at
// most 40 and 20 bytes for a trace; both headers may be cut off or missing.
func ParseHeaders(network, transport []byte) Headers {
	var p Headers
	switch {
	case len(network) >= 20 && network[0]>>4 == 4:
		p.Source, p.Destination = netip.AddrFrom4([4]byte(network[12:16])), netip.AddrFrom4([4]byte(network[16:20]))
		p.Protocol = network[9]
	case len(network) >= 40 && network[0]>>4 == 6:
		p.Source, p.Destination = netip.AddrFrom16([16]byte(network[8:24])), netip.AddrFrom16([16]byte(network[24:40]))
		// If the packet has an extension header, this is its number, and the transport protocol stays unknown.
		p.Protocol = network[6]
	default:
		return p
	}
	if network[0]>>4 == 6 || binary.BigEndian.Uint16(network[6:])&fragmentOffset == 0 {
		p.addTransport(transport)
	}
	return p
}

// fragmentOffset are the bits of the fragment's offset in a header of IPv4. Only the first fragment has the transport header.
const fragmentOffset = 1<<13 - 1

// addTransport reads the header of the protocol.
func (p *Headers) addTransport(transport []byte) {
	switch p.Protocol {
	case uapi.IPPROTO_TCP, uapi.IPPROTO_UDP, uapi.IPPROTO_SCTP:
		if p.HasPorts = len(transport) >= 4; p.HasPorts {
			p.SourcePort = binary.BigEndian.Uint16(transport)
			p.DestinationPort = binary.BigEndian.Uint16(transport[2:])
		}
	case uapi.IPPROTO_ICMP, uapi.IPPROTO_ICMPV6:
		if p.HasType = len(transport) >= 2; p.HasType {
			p.Type, p.Code = transport[0], transport[1]
		}
	}
}
