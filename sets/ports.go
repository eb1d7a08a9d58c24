package sets

import (
	"cmp"
	"iter"
	"slices"
	"strconv"
)

// MaxPort is the greatest port.
const MaxPort = 65535

// PortRange is a range of ports of one IP protocol, both ends included.
type PortRange struct {
	Proto    uint8 // IP protocol number
	From, To uint16
}

// IsValid reports whether the ends are in order. Sets ignore a range that is
// not valid.
func (r PortRange) IsValid() bool { return r.From <= r.To }

// String returns "80/tcp" for a single port and "80-90/udp" for several. A
// protocol other than TCP, UDP and SCTP is given by its number.
func (r PortRange) String() string {
	s := strconv.Itoa(int(r.From))
	if r.From != r.To {
		s += "-" + strconv.Itoa(int(r.To))
	}
	return s + "/" + protoName(r.Proto)
}

// compare orders ranges by protocol, start and end.
func (r PortRange) compare(s PortRange) int {
	return cmp.Or(cmp.Compare(r.Proto, s.Proto), cmp.Compare(r.From, s.From), cmp.Compare(r.To, s.To))
}

// protoName returns the name of a protocol that policies can name, or its
// number.
func protoName(p uint8) string {
	switch p {
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 132:
		return "sctp"
	}
	return strconv.Itoa(int(p))
}

// Ports is an immutable set of ports by protocol, held as ranges that neither
// overlap nor touch. The zero value is the empty set.
type Ports struct{ ranges []PortRange }

// NewPorts returns the set of all ports in the ranges, which may come in any
// order and overlap. A range that is not valid adds nothing.
func NewPorts(rs ...PortRange) Ports {
	return mergePorts(slices.Clone(rs))
}

// mergePorts returns the set of all ports in the ranges. It sorts and reuses the
// slice, so the caller must not use it again.
func mergePorts(rs []PortRange) Ports {
	slices.SortFunc(rs, PortRange.compare)
	out := rs[:0]
	for _, r := range rs {
		if !r.IsValid() {
			continue
		}
		if n := len(out); n > 0 && out[n-1].Proto == r.Proto && int(r.From) <= int(out[n-1].To)+1 {
			out[n-1].To = max(out[n-1].To, r.To)
			continue
		}
		out = append(out, r)
	}
	return Ports{out}
}

// Union returns the set of the ports in p or in q.
func (p Ports) Union(q Ports) Ports {
	return mergePorts(slices.Concat(p.ranges, q.ranges))
}

// Difference returns the set of the ports in p and not in q.
func (p Ports) Difference(q Ports) Ports {
	var out []PortRange
	for _, r := range p.ranges {
		out = appendWithout(out, r, q.ranges)
	}
	return Ports{out}
}

// appendWithout appends the parts of r that none of the cuts covers. The cuts are
// ascending.
func appendWithout(out []PortRange, r PortRange, cuts []PortRange) []PortRange {
	for _, c := range cuts {
		if c.Proto != r.Proto || c.To < r.From || r.To < c.From {
			continue
		}
		if r.From < c.From {
			out = append(out, PortRange{r.Proto, r.From, c.From - 1})
		}
		if r.To <= c.To {
			return out
		}
		r.From = c.To + 1
	}
	return append(out, r)
}

// Contains reports whether the port of the protocol is in the set.
func (p Ports) Contains(proto uint8, port uint16) bool {
	return slices.ContainsFunc(p.ranges, func(r PortRange) bool {
		return r.Proto == proto && r.From <= port && port <= r.To
	})
}

// IsEmpty reports whether the set has no port.
func (p Ports) IsEmpty() bool { return len(p.ranges) == 0 }

// Len returns the number of ranges.
func (p Ports) Len() int { return len(p.ranges) }

// Equal reports whether p and q hold the same ports.
func (p Ports) Equal(q Ports) bool { return slices.Equal(p.ranges, q.ranges) }

// Ranges returns the ranges, ascending by protocol, then port. The ranges of a
// protocol do not overlap and do not touch.
func (p Ports) Ranges() iter.Seq[PortRange] { return slices.Values(p.ranges) }
