package cache

import "slices"

// labelIndex finds the items whose selector may match an object by the object's labels. An item is filed under one
// thing that each of its matches must have, its anchor: a label (for In, each of the values), else the presence of a
// key, else nothing. An object looks up its own labels and no more.
type labelIndex[T comparable] struct {
	pairs map[label][]T
	keys  map[string][]T
	any   []T
	items int
}

// anchor is where an item is filed. The zero value is: under nothing.
type anchor struct {
	pairs []label
	key   string
}

// add files an item under the anchor of its selector that has the fewest items now.
func (x *labelIndex[T]) add(s *selector, item T) anchor {
	a := x.choose(s)
	x.items++
	switch {
	case a.pairs != nil:
		if x.pairs == nil {
			x.pairs = map[label][]T{}
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
func (x *labelIndex[T]) choose(s *selector) anchor {
	var best anchor
	least := -1
	for _, pairs := range s.pairs {
		weight := len(pairs)
		for _, l := range pairs {
			weight += len(x.pairs[l]) << 8
		}
		if least < 0 || weight < least {
			best, least = anchor{pairs: pairs}, weight
		}
	}
	if least >= 0 {
		return best
	}
	for _, k := range s.keys {
		if weight := len(x.keys[k]); least < 0 || weight < least {
			best, least = anchor{key: k}, weight
		}
	}
	return best
}

// remove takes an item out of where add filed it.
func (x *labelIndex[T]) remove(a anchor, item T) {
	x.items--
	switch {
	case a.pairs != nil:
		for _, l := range a.pairs {
			takeOut(x.pairs, l, item)
		}
	case a.key != "":
		takeOut(x.keys, a.key, item)
	default:
		x.any = without(x.any, item)
	}
}

func takeOut[K, T comparable](m map[K][]T, key K, item T) {
	if rest := without(m[key], item); len(rest) > 0 {
		m[key] = rest
	} else {
		delete(m, key)
	}
}

// without removes an item from a list in which order means nothing.
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

// appendCandidates appends the items whose anchor an object with these labels has, each once.
func (x *labelIndex[T]) appendCandidates(to []T, labels labelSet) []T {
	to = append(to, x.any...)
	if len(x.pairs) > 0 {
		for _, l := range labels {
			to = append(to, x.pairs[l]...)
		}
	}
	if len(x.keys) > 0 {
		for _, l := range labels {
			to = append(to, x.keys[l.key]...)
		}
	}
	return to
}
