package explain

import (
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// wholeFamily has all addresses of each family, by the index of the family.
var wholeFamily = [...]sets.AddrRange{
	sets.PrefixRange(netip.MustParsePrefix("0.0.0.0/0")), sets.PrefixRange(netip.MustParsePrefix("::/0")),
}

// sweep goes through the addresses of both families, from one end of a range to the next. Between two such stops, all
// addresses are in the same terms, so the difference is the same for all of them:
//
//	before   ├────── 80/tcp ──────┤
//	after              ├────── 80/tcp ──────┤
//	stops    │         │          │         │        closed │ unchanged │ opened
//
// Its time depends on the number of ranges, not of addresses.
// A sweep is for a single call of run, from a single goroutine.
type sweep struct {
	terms  []term
	before int                   // number of terms that are before; the others are after
	active []bool                // by term: it holds at the current stop
	marks  []uint64              // a random number for each term
	mark   uint64                // identifies the set of active terms: the exclusive-or of their marks
	seen   map[uint64]difference // differences by the set of active terms
}

// difference holds the ports that pass only after the change, and the ports that pass only before it.
// Both are empty where the change has no effect.
type difference struct{ opened, closed sets.Ports }

// stop is an address at which a term begins (active), or the first address behind a range of a term.
// At an address, a term of the same sweep begins or ends, but not both: the ranges of a set are never adjacent.
type stop struct {
	at     netip.Addr
	term   int
	active bool
}

// newSweep returns a sweep over the terms before and after a change.
func newSweep(before, after []term) *sweep {
	s := &sweep{terms: slices.Concat(before, after), before: len(before), seen: map[uint64]difference{}}
	s.active, s.marks = make([]bool, len(s.terms)), make([]uint64, len(s.terms))
	for i := range s.marks {
		s.marks[i] = rand.Uint64()
	}
	return s
}

// run calls f with each range between two stops, and the difference there.
// The ranges cover both families completely, in order, also where nothing passes.
func (s *sweep) run(f func(sets.AddrRange, difference)) {
	for i, family := range sets.Families {
		clear(s.active)
		s.mark = 0
		whole := wholeFamily[i]
		from := whole.From
		for _, stop := range s.stops(family) {
			// Several stops at an address are a single step, without an empty range between.
			if from.Less(stop.at) {
				// The range before the stop has the terms that were active until now.
				f(sets.AddrRange{From: from, To: stop.at.Prev()}, s.difference())
				from = stop.at
			}
			if s.active[stop.term] != stop.active {
				s.active[stop.term] = stop.active
				s.mark ^= s.marks[stop.term]
			}
		}
		// Behind the last stop, to the end of the family.
		f(sets.AddrRange{From: from, To: whole.To}, s.difference())
	}
}

// stops returns the stops of a family in the order of their addresses.
// The number of stops is at most twice the number of ranges.
func (s *sweep) stops(f sets.Family) []stop {
	var all []stop
	for i, t := range s.terms {
		for r := range t.addrs.Ranges(f) {
			all = append(all, stop{r.From, i, true})
			// A range up to the last address of the family has no stop behind it.
			if next := r.To.Next(); next.IsValid() {
				all = append(all, stop{next, i, false})
			}
		}
	}
	slices.SortFunc(all, func(a, b stop) int { return a.at.Compare(b.at) })
	return all
}

// difference returns the difference between the ports of the active terms. Most stops lead back to a set of terms that
// occurred before, so the results are kept.
// Two different sets of terms share a mark with a probability of 2^-64.
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
