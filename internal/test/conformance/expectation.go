package conformance

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Expectation is a line that a person wrote: flows between two pods, or an address and a pod, that all pass or
// are all dropped.
type Expectation struct {
	Text     string
	Allowed  bool
	From, To party
	Services []service
	Live     bool // of packets of connections that are open
	Reply    bool // of these, the packets from To to From
}

// party is one side of a flow as a person writes it: a pod, an interface of it, or an address.
type party struct {
	pod   Key
	iface string
	addr  netip.Addr
}

type service struct {
	proto Protocol
	port  uint16
}

// parseExpectation reads "client -> web@net1 tcp/80 udp/53", "10.1.5.5 -> ops/web icmp" or the like. A pod without a
// namespace is in default. An arrow "=>" stands for packets of open connections from the client to the server, and "<=" for
// the answers of the server.
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

// and returns the expectation with a further service.
func (e Expectation) and(s service) *Expectation {
	e.Text += fmt.Sprintf(" %s/%d", s.proto, s.port)
	e.Services = append(slices.Clone(e.Services), s)
	return &e
}

func parseParty(s string) party {
	if addr, err := netip.ParseAddr(s); err == nil {
		return party{addr: addr}
	}
	name, iface, _ := strings.Cut(s, "@")
	return party{pod: parseKey(name), iface: iface}
}

// parseKey reads "namespace/name", or a name in default.
func parseKey(s string) Key {
	if ns, name, ok := strings.Cut(s, "/"); ok {
		return Key{Namespace: ns, Name: name}
	}
	return Key{Namespace: "default", Name: s}
}

func parseService(s string) (service, error) {
	name, number, _ := strings.Cut(s, "/")
	for _, p := range append([]Protocol{ICMP}, transports...) {
		if p.String() != name {
			continue
		}
		if p == ICMP {
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

// is says whether a terminal is the party.
func (p party) is(t Terminal) bool {
	if p.addr.IsValid() {
		return t.addr == p.addr
	}
	return t.host.key == p.pod && (p.iface == "" || p.iface == t.iface)
}

// Faults returns what came out otherwise, and what was never sent: an expectation of nothing is none.
func (e Expectation) Faults(probes []*Probe) []string {
	seen := map[service]bool{}
	var faults []string
	for _, p := range probes {
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
