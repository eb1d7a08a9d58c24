package oracle

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// Key is the namespace and name of an object. The zero Key is no object.
type Key = types.NamespacedName

// Protocol is the protocol that a packet carries, by its number in IPv4. ICMP stands for ICMPv6 in IPv6.
type Protocol uint8

// The protocols that probes have. A probe of ICMP is an echo request, or an ICMP error, see [Shape].
const (
	TCP  Protocol = unix.IPPROTO_TCP
	UDP  Protocol = unix.IPPROTO_UDP
	SCTP Protocol = unix.IPPROTO_SCTP
	ICMP Protocol = unix.IPPROTO_ICMP
)

// transports are the protocols that have ports.
var Transports = []Protocol{TCP, UDP, SCTP}

// String returns the name of the protocol in the text of flows, for example "tcp".
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	case ICMP:
		return "icmp"
	}
	return fmt.Sprintf("protocol-%d", uint8(p))
}

// Number returns the number of the protocol in the IP family of the address.
func (p Protocol) Number(a netip.Addr) uint8 {
	if p == ICMP && a.Is6() {
		return unix.IPPROTO_ICMPV6
	}
	return uint8(p)
}

// Endpoint is an end of a packet: an address, and the interface of a pod that has the address. An endpoint outside all
// pods has neither a pod nor an interface.
type Endpoint struct {
	Pod   Key
	Iface string
	Addr  netip.Addr
}

// IsPod reports whether the endpoint belongs to a pod.
func (e Endpoint) IsPod() bool { return e.Pod != Key{} }

// String returns "default/web@net1 10.1.0.1", or only the address outside all pods.
func (e Endpoint) String() string {
	if !e.IsPod() {
		return e.Addr.String()
	}
	return fmt.Sprintf("%s@%s %s", e.Pod, e.Iface, e.Addr)
}

// Packet is the first packet of a flow. Packets are comparable.
type Packet struct {
	From, To Endpoint
	Proto    Protocol
	Port     uint16 // the destination's; 0 for ICMP
	Shape    Shape
}

// String returns "a/x@net1 10.1.0.1 -> a/y@net1 10.1.0.2 tcp/80".
func (p Packet) String() string {
	if p.Proto == ICMP {
		return fmt.Sprintf("%s -> %s icmp%s", p.From, p.To, p.Shape)
	}
	return fmt.Sprintf("%s -> %s %s/%d%s", p.From, p.To, p.Proto, p.Port, p.Shape)
}

// Shape is the form of a packet. The policies have the same meaning for all shapes, but rules that read the packet at a
// fixed place might not.
type Shape uint8

const (
	Plain       Shape = iota
	InFragments       // a datagram of UDP in two fragments: the second has no port
	WithOptions       // a datagram of UDP behind options of IPv4 or an extension header of IPv6
	AsError           // an ICMP error about a packet of the receiver, in place of an echo request
)

// String is for the words of a fault.
func (s Shape) String() string {
	return [...]string{"", " in fragments", " with options", " as an ICMP error"}[s]
}
