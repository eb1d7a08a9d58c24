package command

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/explain"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/tracing"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/uapi"
)

// packetOptions are the flags that describe the first packet of a connection.
type packetOptions struct {
	protocol string // name or number; empty: that of --port, or tcp
	port     string // number or name, with or without a protocol; empty: none
	icmpType uint8
	// isICMPTypeSet says that --icmp-type was given: type 0 and no type differ.
	isICMPTypeSet bool
}

// addFlags adds the flags.
func (o *packetOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.protocol, "protocol", "", "tcp, udp, sctp, icmp, icmpv6 or a number; without it, that of --port, or tcp")
	flags.StringVar(&o.port, "port", "",
		"destination `port` of the packet: a number, or the name of a port of the receiving pod; as 80, http, tcp/80 or udp/dns")
	flags.Uint8Var(&o.icmpType, "icmp-type", 0, "type of the ICMP message; without it, echo request")
}

// packet is the first packet of a connection. A port with a name has a number only in a pod.
type packet struct {
	protocol uint8
	port     uint16
	portName string // empty: port is the number
	icmpType uint8
}

// echoRequests are the types of the echo requests of ICMP and ICMPv6, by protocol.
var echoRequests = map[uint8]uint8{uapi.IPPROTO_ICMP: 8, uapi.IPPROTO_ICMPV6: 128}

// read returns the packet, and checks that port and message type fit the protocol. Its errors are for usageError.
func (o *packetOptions) read() (packet, error) {
	protocol, port, err := splitPort(o.port)
	if err != nil {
		return packet{}, err
	}
	switch {
	case protocol == "":
		protocol = o.protocol
	case o.protocol != "" && !strings.EqualFold(o.protocol, protocol):
		return packet{}, fmt.Errorf("--port %s contradicts --protocol %s", o.port, o.protocol)
	}
	if protocol == "" {
		protocol = "tcp"
	}
	var p packet
	if p.protocol, err = tracing.ParseProtocol(protocol); err != nil {
		return p, err
	}
	switch p.protocol {
	case uapi.IPPROTO_TCP, uapi.IPPROTO_UDP, uapi.IPPROTO_SCTP:
		if port == "" {
			return p, fmt.Errorf("--port must be given for %s", protocol)
		}
	default:
		if port != "" {
			return p, fmt.Errorf("--port: %s has no ports", protocol)
		}
	}
	// An ICMP message without a type in the query is an echo request, which starts an exchange as a SYN starts a
	// connection.
	echo, isICMP := echoRequests[p.protocol]
	p.icmpType = echo
	if o.isICMPTypeSet {
		if !isICMP {
			return p, errors.New("--icmp-type is for --protocol icmp and icmpv6")
		}
		p.icmpType = o.icmpType
	}
	return p, p.setPort(port)
}

// setPort sets the number or the name of the port; an empty text is no port.
func (p *packet) setPort(text string) error {
	if text == "" {
		return nil
	}
	if n, err := strconv.ParseUint(text, 10, 16); err == nil {
		p.port = uint16(n)
		return nil
	}
	if len(validation.IsValidPortName(text)) > 0 {
		return fmt.Errorf("--port %q: must be a number up to %d or the name of a port", text, policy.MaxPort)
	}
	p.portName = text
	return nil
}

// splitPort splits "tcp/80" or "80/tcp" into protocol and port. The protocol is empty if the text has none.
func splitPort(text string) (protocol, port string, err error) {
	first, second, found := strings.Cut(text, "/")
	if !found {
		return "", text, nil
	}
	isProtocol := func(s string) bool {
		_, err := strconv.Atoi(s)
		_, errName := tracing.ParseProtocol(s)
		return err != nil && errName == nil
	}
	switch {
	case isProtocol(first) && second != "":
		return first, second, nil
	case isProtocol(second) && first != "":
		return second, first, nil
	}
	return "", "", fmt.Errorf("--port %q: must be a port, or a protocol and a port such as tcp/80", text)
}

// resolve returns the number of the port in the pod that receives the packet.
func (p *packet) resolve(c *cache.Cache, pod cache.Key) (uint16, error) {
	if p.portName == "" {
		return p.port, nil
	}
	ports, err := explain.PortsOf(c, pod)
	if err != nil {
		return 0, err
	}
	var numbers []uint16
	var names []string
	for _, port := range ports {
		if port.Proto == p.protocol && port.Name == p.portName {
			numbers = append(numbers, port.Number)
		}
		names = append(names, policy.ProtocolName(port.Proto)+"/"+port.Name)
	}
	wanted := policy.ProtocolName(p.protocol) + "/" + p.portName
	switch len(numbers) {
	case 0:
		has := "it has no named ports"
		if len(names) > 0 {
			has = "it has " + strings.Join(names, ", ")
		}
		return 0, fmt.Errorf("--port %s: pod %s has no such port: %s", wanted, pod, has)
	case 1:
		return numbers[0], nil
	}
	return 0, fmt.Errorf("--port %s: pod %s has several ports of this name: give a number", wanted, pod)
}

// fits returns an error if packets of the protocol cannot have the address: ICMP is for IPv4, and ICMPv6 for IPv6.
func (p *packet) fits(a netip.Addr) error {
	if _, isICMP := echoRequests[p.protocol]; isICMP && (p.protocol == uapi.IPPROTO_ICMP) != a.Is4() {
		name := map[bool]string{true: "icmp", false: "icmpv6"}[p.protocol == uapi.IPPROTO_ICMP]
		return fmt.Errorf("--protocol %s is not for %s", name, a)
	}
	return nil
}
