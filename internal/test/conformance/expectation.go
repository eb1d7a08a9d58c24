package conformance

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// Expectation is a line that a person wrote: flows between two pods, or between an address and a pod, that all pass or
// that are all dropped. Example: "client -> web@net1 tcp/80 udp/53".
// A line is about all packets that match it: all addresses of a pod, both families, and each service.
type Expectation struct {
	// The line itself, for messages and for [Format].
	Text    string
	Allowed bool
	// From is the sender of the first packet, also where Reply is set.
	From, To party
	Services []service
	Live     bool // the line is about packets of open connections, not about first packets
	Reply    bool // with Live: the line is about packets from To to From
}

// party is one end of an expectation: a pod, one interface of a pod, or an address.
// The zero Key means that the party is an address.
type party struct {
	pod oracle.Key
	// Empty: all interfaces of the pod.
	iface string
	addr  netip.Addr
}

// service is a protocol and a destination port. The port is 0 for ICMP.
// It is comparable, so that it can be the key of a map.
type service struct {
	proto oracle.Protocol
	port  uint16
}

// parseExpectation reads an expectation, for example "client -> web@net1 tcp/80 udp/53" or "10.1.5.5 -> ops/web icmp".
// A pod without a namespace is in the namespace "default". The arrow says which packets are meant:
//
//	->   first packets of new connections
//	=>   packets of open connections, from the client to the server
//	<=   packets of open connections, from the server to the client
func parseExpectation(text string, allowed bool) (Expectation, error) {
	e := Expectation{Text: text, Allowed: allowed}
	fields := strings.Fields(text)
	if len(fields) < 4 || !slices.Contains([]string{"->", "=>", "<="}, fields[1]) {
		return e, fmt.Errorf("%q is not of the form %q", text, "FROM -> TO PROTOCOL/PORT...")
	}
	e.From, e.To = parseParty(fields[0]), parseParty(fields[2])
	e.Live, e.Reply = fields[1] != "->", fields[1] == "<="
	for _, f := range fields[3:] {
		s, err := parseService(f)
		if err != nil {
			return e, fmt.Errorf("%q: %w", text, err)
		}
		e.Services = append(e.Services, s)
	}
	return e, nil
}

// and returns a copy with a further service. The original is shared between cases and must not change.
// Text has the service too, so that Format writes it.
func (e Expectation) and(s service) *Expectation {
	e.Text += fmt.Sprintf(" %s/%d", s.proto, s.port)
	e.Services = append(slices.Clone(e.Services), s)
	return &e
}

// parseParty reads an address, a pod, or a pod and its interface ("ops/web@net1").
// A text that is not an address is the name of a pod, whether or not the pod exists.
func parseParty(s string) party {
	if addr, err := netip.ParseAddr(s); err == nil {
		return party{addr: addr}
	}
	name, iface, _ := strings.Cut(s, "@")
	return party{pod: parseKey(name), iface: iface}
}

// parseKey reads "namespace/name". A name without a namespace is in the namespace "default".
func parseKey(s string) oracle.Key {
	if ns, name, ok := strings.Cut(s, "/"); ok {
		return oracle.Key{Namespace: ns, Name: name}
	}
	return oracle.Key{Namespace: "default", Name: s}
}

// parseService reads "tcp/80" or "icmp". ICMP has no port.
func parseService(s string) (service, error) {
	name, number, _ := strings.Cut(s, "/")
	for _, p := range append([]oracle.Protocol{oracle.ICMP}, oracle.Transports...) {
		if p.String() != name {
			continue
		}
		if p == oracle.ICMP {
			return service{proto: p}, nil
		}
		port, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return service{}, fmt.Errorf("%q: %w", s, err)
		}
		return service{p, uint16(port)}, nil
	}
	return service{}, fmt.Errorf("%q: no such protocol", s)
}

// is reports whether a terminal belongs to the party.
// A party without an interface has all terminals of its pod.
func (p party) is(t Terminal) bool {
	if p.addr.IsValid() {
		return t.addr == p.addr
	}
	return t.host.key == p.pod && (p.iface == "" || p.iface == t.iface)
}

// Faults returns a message for each probe whose verdict differs from the expectation, and for each service that no
// probe was about. The second kind keeps a mistyped line from being a line that always holds.
// probes are those of a step, with their results. No message means that the expectation holds.
func (e Expectation) Faults(probes []*Probe) []string {
	seen := map[service]bool{}
	var faults []string
	for _, p := range probes {
		// A probe of a reply goes the other way, and its port is the client's. A line names the direction and the port
		// of the connection.
		from, to, s := p.From, p.To, service{p.Proto, p.Port}
		if p.reply {
			from, to, s.port = to, from, p.flow.port
		}
		if e.Live != (p.flow != nil) || e.Reply != p.reply || !e.From.is(from) || !e.To.is(to) || !slices.Contains(e.Services, s) {
			continue
		}
		seen[s] = true
		if passed := !p.refused && p.arrived; passed != e.Allowed {
			words := map[bool]string{false: "dropped", true: "allowed"}
			faults = append(faults, fmt.Sprintf("%s: is %s, expected to be %s", p.Packet(), words[passed], words[e.Allowed]))
		}
	}
	for _, s := range e.Services {
		if !seen[s] {
			faults = append(faults, fmt.Sprintf("%s: there is no such flow to probe (%s)", e.Text, s.proto))
		}
	}
	return faults
}
