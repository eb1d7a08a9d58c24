package cache

import (
	"net/netip"
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// wholeFamily is all addresses, by the index of the family.
var wholeFamily = [...]sets.AddrRange{
	sets.PrefixRange(netip.MustParsePrefix("0.0.0.0/0")), sets.PrefixRange(netip.MustParsePrefix("::/0")),
}

// sweep goes through the addresses of both families from one end of a range of a term to the next, so that between two
// stops all addresses are in the same terms, and calls f with what differs there. It costs the number of ranges.
type sweep struct {
	terms  []term
	before int // so many of the terms are before, the others after
	active []byte
	seen   map[string]difference // by which terms are active
}

// difference is the ports that one side has and the other one has not.
type difference struct{ opened, closed sets.Ports }

// stop is where a term begins, or where it is no longer.
type stop struct {
	at     netip.Addr
	term   int
	active byte
}

func newSweep(before, after []term) *sweep {
	terms := slices.Concat(before, after)
	return &sweep{terms: terms, before: len(before), active: make([]byte, len(terms)), seen: map[string]difference{}}
}

func (s *sweep) run(f func(sets.AddrRange, difference)) {
	for i, family := range sets.Families {
		clear(s.active)
		whole := wholeFamily[i]
		from := whole.From
		for _, stop := range s.stops(family) {
			if from.Less(stop.at) {
				s.tell(sets.AddrRange{From: from, To: stop.at.Prev()}, f)
				from = stop.at
			}
			s.active[stop.term] = stop.active
		}
		s.tell(sets.AddrRange{From: from, To: whole.To}, f)
	}
}

func (s *sweep) stops(f sets.Family) []stop {
	var all []stop
	for i, t := range s.terms {
		for r := range t.addrs.Ranges(f) {
			all = append(all, stop{r.From, i, 1})
			if next := r.To.Next(); next.IsValid() {
				all = append(all, stop{next, i, 0})
			}
		}
	}
	slices.SortFunc(all, func(a, b stop) int { return a.at.Compare(b.at) })
	return all
}

func (s *sweep) tell(r sets.AddrRange, f func(sets.AddrRange, difference)) {
	d, known := s.seen[string(s.active)]
	if !known {
		var before, after sets.Ports
		for i, t := range s.terms {
			switch {
			case s.active[i] == 0:
			case i < s.before:
				before = before.Union(t.ports)
			default:
				after = after.Union(t.ports)
			}
		}
		d = difference{opened: after.Difference(before), closed: before.Difference(after)}
		s.seen[string(s.active)] = d
	}
	f(r, d)
}
