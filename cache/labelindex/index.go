package labelindex

import "slices"

// Index finds the items with a selector that may match an object with given labels. The zero value is an empty index.
//
// Each item is stored under its anchor: a condition of its selector that every matching object meets. The anchor is a required
// label (or the labels for all values of the operator In), else the presence of a key, else no condition. The cost of a lookup
// depends on the number of the object's labels and of the found items, not on the number of items in the index.
type Index[T comparable] struct {
	// An item with the operator In is in several lists of pairs, once for each value.
	pairs map[Label][]T  // items by required label
	keys  map[string][]T // items by required key
	any   []T            // items without a condition
	items int
}

// Anchor is the condition under which an item is stored. The zero value means no condition.
type Anchor struct {
	pairs []Label // the object has any of these labels
	key   string  // the object has a label with this key
}

// Len returns the number of items.
func (x *Index[T]) Len() int { return x.items }

// Add adds an item with its selector, and returns the anchor, which Remove needs. It chooses the anchor with the fewest items at
// this time. An item must not be added twice.
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

// choose returns the anchor of the selector with the fewest items, and among equal anchors the anchor with the fewest values.
func (x *Index[T]) choose(s *Selector) Anchor {
	var best Anchor
	least := -1
	// Among the required labels, few items under a label weigh more than few values.
	for _, pairs := range s.pairs {
		weight := len(pairs) // the number of values counts less than an item
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

// Remove removes an item. a is the anchor that Add returned.
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

// AppendCandidates appends the items with an anchor that an object with these labels meets, each once. The caller must still
// check their selectors.
func (x *Index[T]) AppendCandidates(to []T, l Set) []T {
	// A key occurs once in a Set, and an item has a single anchor, so no item is appended twice.
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

// removeFrom removes an item from the list of a key, and the key if its list becomes empty.
func removeFrom[K, T comparable](m map[K][]T, key K, item T) {
	if rest := without(m[key], item); len(rest) > 0 {
		m[key] = rest
	} else {
		delete(m, key)
	}
}

// without removes an item from a list in place. It does not keep the order.
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
