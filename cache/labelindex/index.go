package labelindex

import "slices"

// Index finds the items whose selector may match an object with given labels. The zero value is an empty index.
//
// Each item is filed under one condition that every match meets, its anchor: a label (for the operator In, each of the
// values), else the presence of a key, else nothing. A lookup costs the labels of the object and the items found, not
// the number of items filed.
type Index[T comparable] struct {
	pairs map[Label][]T
	keys  map[string][]T
	any   []T
	items int
}

// Anchor says where an item is filed. The zero value means: under no condition.
type Anchor struct {
	pairs []Label
	key   string
}

// Len returns the number of items.
func (x *Index[T]) Len() int { return x.items }

// Add files an item under the anchor of its selector that has the fewest items now. Remove needs the anchor.
func (x *Index[T]) Add(s *Selector, item T) Anchor {
	a := x.choose(s)
	x.items++
	switch {
	case a.pairs != nil:
		if x.pairs == nil {
			x.pairs = map[Label][]T{}
		}
		for _, l := range a.pairs {
			x.pairs[l] = append(x.pairs[l], item)
		}
	case a.key != "":
		if x.keys == nil {
			x.keys = map[string][]T{}
		}
		x.keys[a.key] = append(x.keys[a.key], item)
	default:
		x.any = append(x.any, item)
	}
	return a
}

// choose returns the anchor that the fewest other items have; of equal ones, the one with the fewest values.
func (x *Index[T]) choose(s *Selector) Anchor {
	var best Anchor
	least := -1
	for _, pairs := range s.pairs {
		weight := len(pairs)
		for _, l := range pairs {
			weight += len(x.pairs[l]) << 8
		}
		if least < 0 || weight < least {
			best, least = Anchor{pairs: pairs}, weight
		}
	}
	if least >= 0 {
		return best
	}
	for _, k := range s.keys {
		if weight := len(x.keys[k]); least < 0 || weight < least {
			best, least = Anchor{key: k}, weight
		}
	}
	return best
}

// Remove takes an item out.
func (x *Index[T]) Remove(a Anchor, item T) {
	x.items--
	switch {
	case a.pairs != nil:
		for _, l := range a.pairs {
			removeFrom(x.pairs, l, item)
		}
	case a.key != "":
		removeFrom(x.keys, a.key, item)
	default:
		x.any = without(x.any, item)
	}
}

// AppendCandidates appends the items whose anchor an object with these labels meets, each once.
func (x *Index[T]) AppendCandidates(to []T, l Set) []T {
	to = append(to, x.any...)
	if len(x.pairs) > 0 {
		for _, label := range l {
			to = append(to, x.pairs[label]...)
		}
	}
	if len(x.keys) > 0 {
		for _, label := range l {
			to = append(to, x.keys[label.Key]...)
		}
	}
	return to
}

func removeFrom[K, T comparable](m map[K][]T, key K, item T) {
	if rest := without(m[key], item); len(rest) > 0 {
		m[key] = rest
	} else {
		delete(m, key)
	}
}

// without removes an item from a list whose order means nothing.
func without[T comparable](list []T, item T) []T {
	i := slices.Index(list, item)
	if i < 0 {
		return list
	}
	var zero T
	last := len(list) - 1
	list[i], list[last] = list[last], zero
	return list[:last]
}
