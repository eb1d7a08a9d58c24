package explain

import (
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// wholeFamily is all addresses, by the index of the family.
var wholeFamily = [...]sets.AddrRange{
	sets.PrefixRange(netip.MustParsePrefix("0.0.0.0/0")), sets.PrefixRange(netip.MustParsePrefix("::/0")),
}

// sweep goes through the addresses of both families from one end of a range of a term to the next, so that between two
// stops all addresses are in the same terms, and calls f with the differences there. It costs the number of ranges.
type sweep struct {
	terms  []term
	before int // so many of the terms are before, the others after
	active []bool
	marks  []uint64 // of the terms, random
	mark   uint64   // of the set of active terms: the marks of its terms, exclusive-or
	seen   map[uint64]difference
}

// difference holds the ports that pass only after the change, and the ports that pass only before it.
type difference struct{ opened, closed sets.Ports }

// stop is where a term begins, or where it is no longer.
type stop struct {
	at     netip.Addr
	term   int
	active bool
}

func newSweep(before, after []term) *sweep {
	s := &sweep{terms: slices.Concat(before, after), before: len(before), seen: map[uint64]difference{}}
	s.active, s.marks = make([]bool, len(s.terms)), make([]uint64, len(s.terms))
	for i := range s.marks {
		s.marks[i] = rand.Uint64()
	}
	return s
}

func (s *sweep) run(f func(sets.AddrRange, difference)) {
	for i, family := range sets.Families {
		clear(s.active)
		s.mark = 0
		whole := wholeFamily[i]
		from := whole.From
		for _, stop := range s.stops(family) {
			if from.Less(stop.at) {
				f(sets.AddrRange{From: from, To: stop.at.Prev()}, s.difference())
				from = stop.at
			}
			if s.active[stop.term] != stop.active {
				s.active[stop.term] = stop.active
				s.mark ^= s.marks[stop.term]
			}
		}
		f(sets.AddrRange{From: from, To: whole.To}, s.difference())
	}
}

func (s *sweep) stops(f sets.Family) []stop {
	var all []stop
	for i, t := range s.terms {
		for r := range t.addrs.Ranges(f) {
			all = append(all, stop{r.From, i, true})
			if next := r.To.Next(); next.IsValid() {
				all = append(all, stop{next, i, false})
			}
		}
	}
	slices.SortFunc(all, func(a, b stop) int { return a.at.Compare(b.at) })
	return all
}

// difference compares the ports of the active terms. Most stops lead back to a set of terms that was seen before.
func (s *sweep) difference() difference {
	if d, known := s.seen[s.mark]; known {
		return d
	}
	var before, after []sets.PortRange
	for i, t := range s.terms {
		switch {
		case !s.active[i]:
		case i < s.before:
			before = slices.AppendSeq(before, t.ports.Ranges())
		default:
			after = slices.AppendSeq(after, t.ports.Ranges())
		}
	}
	was, is := sets.NewPorts(before...), sets.NewPorts(after...)
	d := difference{opened: is.Difference(was), closed: was.Difference(is)}
	s.seen[s.mark] = d
	return d
}
