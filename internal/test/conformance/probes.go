package conformance

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// probes returns probes between all terminals on each wire, in all protocols and to all ports. Sources are also forged
// addresses.
func (r *play) probes(expect []Expectation) []*Probe {
	only := map[oracle.Packet]bool{}
	for _, p := range r.Only {
		only[p] = true
	}
	terminals := r.fabric.Terminals()
	sources := append(slices.Clone(terminals), r.spoofed(terminals, expect)...)
	var out []*Probe
	for _, from := range sources {
		spoofed := !slices.Contains(terminals, from)
		for _, to := range terminals {
			if from.wire != to.wire || from.host == to.host || from.addr.Is4() != to.addr.Is4() {
				continue
			}
			for _, s := range services(r.fabric.ports) {
				// Random cases are many, so only a sample of the packets is sent. The sample differs between quiet
				// points.
				if r.Share > 0 && r.sample.IntN(r.Share) > 0 {
					continue
				}
				for _, shape := range r.shapes(s.proto) {
					if shape == oracle.InFragments && from.addr.Is6() && (from.device() == Bridge || to.device() == Bridge) {
						continue // the kernel drops such short fragments, see docs/virtual-machines.md
					}
					p := &Probe{From: from, To: to, Proto: s.proto, Port: s.port, shape: shape, OneWay: spoofed || r.answersElsewhere(to)}
					if len(only) == 0 || only[p.Packet()] {
						out = append(out, p)
					}
				}
			}
		}
	}
	// Only random cases send to many hosts: a case of a person is about other behavior.
	for _, p := range r.toMany(terminals) {
		if r.Share > 0 && r.sample.IntN(r.Share) == 0 || only[p.Packet()] {
			out = append(out, p)
		}
	}
	return out
}

// toMany returns probes from each terminal to each host on its wire: by a multicast group that all hosts are in, and by
// the broadcast address. A pod must also get its own packets back, because the kernel gives the sender a copy. The
// copies of a virtual machine stay inside it.
func (r *play) toMany(terminals []Terminal) []*Probe {
	var out []*Probe
	for _, from := range terminals {
		for _, h := range r.fabric.present() {
			for _, l := range h.links {
				hasFamily := slices.ContainsFunc(l.Addrs, func(a netip.Addr) bool { return a.Is4() == from.addr.Is4() })
				isSelf := h == from.host
				if l.Wire != from.wire || !hasFamily || isSelf && (l.Iface != from.iface || h == r.fabric.outside || h.pod != h.Host) {
					continue
				}
				for _, to := range everybody(from.addr) {
					out = append(out, &Probe{From: from, To: Terminal{h, l.Iface, l.Wire, to}, Proto: oracle.UDP, Port: manyPort, OneWay: true, toMany: true})
				}
			}
		}
	}
	return out
}

// shapes returns the shapes in which packets of a protocol are sent. In cases that a person wrote, all packets are
// plain.
// A sample has a single shape for each packet.
func (r *play) shapes(proto oracle.Protocol) []oracle.Shape {
	switch {
	case len(r.Only) > 0:
		return shapesOf(proto)
	case r.Share > 0:
		return []oracle.Shape{someShape(r.sample, proto)}
	}
	return []oracle.Shape{oracle.Plain}
}

// answersElsewhere reports whether an answer may leave by another interface than the interface on which the connection
// came in, in a case where that changes its verdict: with --established=revoke, replies are judged by the policies of
// the interface on which they leave.
func (r *play) answersElsewhere(t Terminal) bool {
	return t.isOnSharedWire() && r.oracle.Flags["established"] == "revoke"
}

// services returns each protocol with each port.
// ICMP comes once, since it has no ports.
func services(ports []uint16) []service {
	out := []service{{proto: oracle.ICMP}}
	for _, proto := range oracle.Transports {
		for _, port := range ports {
			out = append(out, service{proto, port})
		}
	}
	return out
}

// spoofed returns terminals of the outside with addresses that are not the outside's: a link-local address, addresses
// that pods had and that must be no peers any more, and addresses from which an expectation sends without a pod.
func (r *play) spoofed(terminals []Terminal, expect []Expectation) []Terminal {
	owned := func(s spot) bool {
		return slices.ContainsFunc(terminals, func(t Terminal) bool { return t.wire == s.wire && t.addr == s.addr })
	}
	claimed := func(a netip.Addr) bool {
		return slices.ContainsFunc(expect, func(e Expectation) bool { return e.From.addr == a })
	}
	var spots []spot
	if r.Share > 0 || len(r.Only) > 0 { // no pod has a link-local address by its status
		for wire := range r.fabric.wires {
			spots = append(spots, spot{wire, linkLocal})
		}
	}
	for s := range r.pods {
		if !owned(s) || claimed(s.addr) {
			spots = append(spots, s)
		}
	}
	// The order of a map is random, and the sample must be the same in each run.
	slices.SortFunc(spots, func(a, b spot) int {
		if c := strings.Compare(a.wire, b.wire); c != 0 {
			return c
		}
		return a.addr.Compare(b.addr)
	})
	var out []Terminal
	for _, s := range spots {
		if t := r.fabric.Spoofed(s.wire, s.addr); !slices.Contains(terminals, t) {
			out = append(out, t)
		}
	}
	return out
}
