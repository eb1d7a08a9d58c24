package sets

import (
	"cmp"
	"iter"
	"slices"
)

// NumberRange is a range of numbers, both ends included.
type NumberRange struct{ From, To uint32 }

// IsValid reports whether the ends are in order. Sets ignore a range that is
// not valid.
func (r NumberRange) IsValid() bool { return r.From <= r.To }

// compare orders ranges by start and end.
func (r NumberRange) compare(s NumberRange) int {
	return cmp.Or(cmp.Compare(r.From, s.From), cmp.Compare(r.To, s.To))
}

// Numbers is an immutable set of numbers (ports, protocols, message types,
// marks), held as ranges that neither overlap nor touch. The zero value is the
// empty set.
type Numbers struct{ ranges []NumberRange }

// NewNumbers returns the set of all numbers in the ranges, which may come in
// any order and overlap. A range that is not valid adds nothing.
func NewNumbers(rs ...NumberRange) Numbers {
	sorted := slices.SortedFunc(slices.Values(rs), NumberRange.compare)
	out := sorted[:0]
	for _, r := range sorted {
		if !r.IsValid() {
			continue
		}
		// In 64 bits, since To+1 must not wrap around to 0.
		if n := len(out); n > 0 && uint64(r.From) <= uint64(out[n-1].To)+1 {
			out[n-1].To = max(out[n-1].To, r.To)
			continue
		}
		out = append(out, r)
	}
	return Numbers{out}
}

// Contains reports whether the number is in the set.
func (s Numbers) Contains(n uint32) bool {
	return slices.ContainsFunc(s.ranges, func(r NumberRange) bool { return r.From <= n && n <= r.To })
}

// IsEmpty reports whether the set has no number.
func (s Numbers) IsEmpty() bool { return len(s.ranges) == 0 }

// Len returns the number of ranges.
func (s Numbers) Len() int { return len(s.ranges) }

// Equal reports whether s and t hold the same numbers.
func (s Numbers) Equal(t Numbers) bool { return slices.Equal(s.ranges, t.ranges) }

// Ranges returns the ranges, ascending. They do not overlap and do not touch.
func (s Numbers) Ranges() iter.Seq[NumberRange] { return slices.Values(s.ranges) }
