package tracing

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/packet"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/uapi"
)

// Packet is the header of a traced packet. Fields that the packet does not have are zero, and absent in JSON.
type Packet struct {
	Protocol        string `json:"protocol"`
	Source          string `json:"source"`
	Destination     string `json:"destination"`
	SourcePort      uint16 `json:"sourcePort,omitempty"`
	DestinationPort uint16 `json:"destinationPort,omitempty"`
	ICMPType        *uint8 `json:"icmpType,omitempty"`
}

// NewPacket returns the header of a packet. Without readable headers, its fields are "unknown".
func NewPacket(p packet.Headers) Packet {
	if !p.Source.IsValid() {
		return Packet{Protocol: "unknown", Source: "unknown", Destination: "unknown"}
	}
	t := Packet{
		Protocol: protocolText(p.Protocol), Source: p.Source.String(), Destination: p.Destination.String(),
		SourcePort: p.SourcePort, DestinationPort: p.DestinationPort,
	}
	if p.HasType {
		t.ICMPType = &p.Type
	}
	return t
}

// protocolText returns the name of a protocol that has a name for flags, else its number.
func protocolText(n uint8) string {
	for name, number := range protocols {
		if number == n {
			return name
		}
	}
	return fmt.Sprintf("protocol %d", n)
}

// String returns "tcp 10.0.0.1:1 -> 10.0.0.2:80", or the same with a message type or without ports.
func (p Packet) String() string {
	switch {
	case p.ICMPType != nil:
		return fmt.Sprintf("%s type %d %s -> %s", p.Protocol, *p.ICMPType, p.Source, p.Destination)
	case p.DestinationPort != 0:
		return fmt.Sprintf("%s %s -> %s", p.Protocol, endpointText(p.Source, p.SourcePort), endpointText(p.Destination, p.DestinationPort))
	}
	return fmt.Sprintf("%s %s -> %s", p.Protocol, p.Source, p.Destination)
}

// endpointText returns address:port, with brackets around an IPv6 address.
func endpointText(addr string, port uint16) string {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return addr
	}
	return netip.AddrPortFrom(a, port).String()
}

// protocols are the protocols that flags accept by name.
var protocols = map[string]uint8{
	"tcp": uapi.IPPROTO_TCP, "udp": uapi.IPPROTO_UDP, "sctp": uapi.IPPROTO_SCTP, "icmp": uapi.IPPROTO_ICMP, "icmpv6": uapi.IPPROTO_ICMPV6,
}

// ParseProtocol reads the value of a flag --protocol: a name or an IP protocol number.
func ParseProtocol(s string) (uint8, error) {
	if n, ok := protocols[strings.ToLower(s)]; ok {
		return n, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("--protocol %q: must be tcp, udp, sctp, icmp, icmpv6 or a number up to 255", s)
	}
	return uint8(n), nil
}
