package demo

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// probeTimeout is the time without an answer after which a probe counts as dropped.
// A forbidden packet gets no answer, so each dropped probe takes this time.
const probeTimeout = time.Second

// service is a port on which every pod of the demo has a server.
type service struct {
	proto lab.Protocol
	port  uint16
}

// String returns the protocol and the port: "tcp/80".
func (s service) String() string { return fmt.Sprintf("%s/%d", s.proto, s.port) }

// parseService reads a service in the form of String: "tcp/80".
func parseService(text string) (service, error) {
	proto, port, _ := strings.Cut(text, "/")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || proto != string(lab.TCP) && proto != string(lab.UDP) {
		return service{}, fmt.Errorf("%q is no service like tcp/80", text)
	}
	return service{lab.Protocol(proto), uint16(n)}, nil
}

// flow is a connection from a pod to a service of another pod.
type flow struct {
	from, to string
	service  service
}

// String returns the flow in words, for messages about unexpected verdicts.
func (f flow) String() string { return fmt.Sprintf("%s from %s to %s", f.service, f.from, f.to) }

// expectation holds the expected verdicts of all flows.
// It comes from files/expected.txt, which is written by hand.
type expectation struct {
	services []service
	names    []string      // names of the pods, in the order of the tables
	allowed  map[flow]bool // every flow has an entry
}

// parseExpectation reads tables. A table has a line with a service and the receivers, and then a line for each sender
// with a cell for each receiver: + allowed, x dropped, . the sender itself. # starts a comment.
//
//	tcp/80    web  db
//	web       .    +
//	db        x    .
//
// An error names the line. Each table may have its own receivers.
func parseExpectation(text string) (*expectation, error) {
	e := &expectation{allowed: map[flow]bool{}}
	var s service
	var receivers []string
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
			continue
		case strings.Contains(fields[0], "/"):
			var err error
			if s, err = parseService(fields[0]); err != nil {
				return nil, fmt.Errorf("line %d: %w", i+1, err)
			}
			receivers = fields[1:]
			e.services = append(e.services, s)
			e.names = receivers
			continue
		case len(fields) != len(receivers)+1:
			return nil, fmt.Errorf("line %d: %d cells for %d receivers", i+1, len(fields)-1, len(receivers))
		}
		for j, cell := range fields[1:] {
			f := flow{fields[0], receivers[j], s}
			switch {
			case f.from == f.to && cell == ".":
			case f.from != f.to && (cell == "+" || cell == "x"):
				e.allowed[f] = cell == "+"
			default:
				return nil, fmt.Errorf("line %d: %q from %s to %s", i+1, cell, f.from, f.to)
			}
		}
	}
	return e, nil
}

// without returns the expectation without policies: all flows are allowed.
func (e *expectation) without() *expectation {
	open := &expectation{services: e.services, names: e.names, allowed: map[flow]bool{}}
	for f := range e.allowed {
		open.allowed[f] = true
	}
	return open
}

// covers returns an error unless the expectation has exactly the flows between these pods.
// So a pod that is added to the manifests makes the demo fail until the expectation has it.
func (e *expectation) covers(pods []*pod) error {
	for _, from := range pods {
		for _, to := range pods {
			for _, s := range e.services {
				f := flow{from.name(), to.name(), s}
				// Each pair must have an entry; the count below finds entries that are too many.
				if _, ok := e.allowed[f]; !ok && from != to {
					return fmt.Errorf("nothing is expected of %s", f)
				}
			}
		}
	}
	if want := len(pods) * (len(pods) - 1) * len(e.services); len(e.allowed) != want {
		return fmt.Errorf("%d flows are expected, the pods have %d", len(e.allowed), want)
	}
	return nil
}

// probe is a flow to an address of the receiver, with its result.
// A receiver with two addresses has two probes for a flow.
type probe struct {
	flow
	to     netip.Addr
	result lab.Result
}

// probes are the probes of a run, in any order.
type probes []*probe

// probeAll sends every flow of the expectation to every address, all at the same time.
// It takes as long as the slowest probe: probeTimeout, if any packet is dropped.
func (d *demo) probeAll(ctx context.Context, e *expectation) probes {
	var all probes
	var running sync.WaitGroup
	for _, from := range d.pods {
		for _, to := range d.pods {
			for _, s := range e.services {
				for _, addr := range to.addrs {
					if from == to {
						continue
					}
					// Both families of a receiver are probed, with the same expectation.
					p := &probe{flow: flow{from.name(), to.name(), s}, to: addr}
					all = append(all, p)
					running.Go(func() {
						p.result = lab.Probe(ctx, from.host, netip.AddrPortFrom(addr, s.port), s.proto, probeTimeout)
					})
				}
			}
		}
	}
	running.Wait()
	return all
}

// unexpected describes the probes with an unexpected verdict, sorted.
// Each text names the flow, the address and both verdicts.
func (ps probes) unexpected(e *expectation) []string {
	var wrong []string
	for _, p := range ps {
		want := lab.Dropped
		if e.allowed[p.flow] {
			want = lab.Allowed
		}
		if p.result.Verdict == want {
			continue
		}
		text := fmt.Sprintf("%s at %s: %s, not %s", p.flow, p.to, p.result.Verdict, want)
		if p.result.Err != nil {
			text += fmt.Sprintf(" (%v)", p.result.Err)
		}
		wrong = append(wrong, text)
	}
	slices.Sort(wrong)
	return wrong
}

// tables returns a table for each service, with a row for each sender and a column for each receiver.
// A mark is ✔ for allowed, ✘ for dropped, ? for a probe that failed for another reason.
func (ps probes) tables(e *expectation) string {
	cells := map[flow][]*probe{}
	for _, p := range ps {
		cells[p.flow] = append(cells[p.flow], p)
	}
	width := 0
	for _, n := range e.names {
		width = max(width, len(n))
	}
	var b strings.Builder
	for _, s := range e.services {
		fmt.Fprintf(&b, "\n  %-*s", width, s)
		for _, to := range e.names {
			fmt.Fprintf(&b, "  %s", to)
		}
		b.WriteByte('\n')
		for _, from := range e.names {
			line := fmt.Sprintf("  %-*s", width, from)
			for _, to := range e.names {
				line += "  " + padded(cell(cells[flow{from, to, s}]), len(to))
			}
			b.WriteString(strings.TrimRight(line, " ") + "\n")
		}
	}
	return b.String()
}

// cell returns a single mark if all addresses have the same verdict, else a mark for each address, IPv4 first.
// It is a dot for the sender itself.
func cell(ps []*probe) string {
	if len(ps) == 0 {
		return "·"
	}
	slices.SortFunc(ps, func(a, b *probe) int { return cmp.Compare(a.to.BitLen(), b.to.BitLen()) })
	marks := map[lab.Verdict]string{lab.Allowed: "✔", lab.Dropped: "✘", lab.Failed: "?"}
	all, same := "", true
	for _, p := range ps {
		all += marks[p.result.Verdict]
		same = same && p.result.Verdict == ps[0].result.Verdict
	}
	if same {
		return marks[ps[0].result.Verdict]
	}
	return all
}

// padded centers a mark in a column. It counts characters, since fmt would count bytes.
func padded(mark string, width int) string {
	free := max(width-len([]rune(mark)), 0)
	return strings.Repeat(" ", free/2) + mark + strings.Repeat(" ", free-free/2)
}
