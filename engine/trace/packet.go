package trace

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Headers is what the headers of a packet say. Source is invalid if they could not be read.
type Headers struct {
	Source, Destination         netip.Addr
	Protocol                    uint8
	HasPorts                    bool
	SourcePort, DestinationPort uint16
	HasType                     bool
	Type, Code                  uint8 // of ICMP or ICMPv6
}

// parseHeaders reads a network header (RFC 791 section 3.1, RFC 8200 section 3), of which the kernel gives 40 bytes at
// most, and a transport header, of which it gives 20, both possibly cut or not there.
func parseHeaders(network, transport []byte) Headers {
	var p Headers
	switch {
	case len(network) >= 20 && network[0]>>4 == 4:
		p.Source, p.Destination = netip.AddrFrom4([4]byte(network[12:16])), netip.AddrFrom4([4]byte(network[16:20]))
		p.Protocol = network[9]
	case len(network) >= 40 && network[0]>>4 == 6:
		p.Source, p.Destination = netip.AddrFrom16([16]byte(network[8:24])), netip.AddrFrom16([16]byte(network[24:40]))
		// That of an extension header, if there is one: what is behind it is not told.
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
