package conformance

import (
	"net/netip"
	"slices"
	"strings"
)

// probes are all packets between all terminals on a wire.
func (r *play) probes(expect []Expectation) []*Probe {
	only := map[Packet]bool{}
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
				if r.Share > 0 && r.sample.IntN(r.Share) > 0 {
					continue
				}
				for _, shape := range r.shapes(s.proto) {
					if shape == inFragments && from.addr.Is6() && (from.device() == Bridge || to.device() == Bridge) {
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
	for _, p := range r.toMany(terminals) {
		if r.Share > 0 && r.sample.IntN(r.Share) == 0 || only[p.Packet()] {
			out = append(out, p)
		}
	}
	return out
}

// toMany returns a probe from each terminal to each host on its wire, by a multicast group that all hosts are in, and by the
// broadcast address. A pod is also to get its own packets back: the kernel gives the sender a copy. The copies of a virtual machine
// stay inside it.
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
					out = append(out, &Probe{From: from, To: Terminal{h, l.Iface, l.Wire, to}, Proto: UDP, Port: manyPort, OneWay: true, toMany: true})
				}
			}
		}
	}
	return out
}

// shapes returns the shapes in which packets of a protocol are sent. Cases that a person wrote are about other things.
func (r *play) shapes(proto Protocol) []shape {
	switch {
	case len(r.Only) > 0:
		return shapesOf(proto)
	case r.Share > 0:
		return []shape{someShape(r.sample, proto)}
	}
	return []shape{plain}
}

// answersElsewhere says whether an answer may leave by another interface than the one that the connection came in on,
// where replies are asked for what they answer: they are by what holds on the interface that they leave by.
func (r *play) answersElsewhere(t Terminal) bool {
	return t.isOnSharedWire() && r.oracle.Flags["established"] == "revoke"
}

// services are all protocols with all ports.
func services(ports []uint16) []service {
	out := []service{{proto: ICMP}}
	for _, proto := range transports {
		for _, port := range ports {
			out = append(out, service{proto, port})
		}
	}
	return out
}

// spoofed are terminals of the outside with a link-local address, and with addresses that are not the outside's: those that
// pods had, for they must be no peers any more, and those of pods that are expected to send without being them.
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
