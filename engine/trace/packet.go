package trace

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
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

// parseHeaders reads a network header (RFC 791 section 3.1, RFC 8200 section 3) and a transport header. The kernel gives at
// most 40 and 20 bytes; both headers may be cut off or missing.
func parseHeaders(network, transport []byte) Headers {
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
	switch p.Protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP:
		if p.HasPorts = len(transport) >= 4; p.HasPorts {
			p.SourcePort = binary.BigEndian.Uint16(transport)
			p.DestinationPort = binary.BigEndian.Uint16(transport[2:])
		}
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		if p.HasType = len(transport) >= 2; p.HasType {
			p.Type, p.Code = transport[0], transport[1]
		}
	}
	return p
}
