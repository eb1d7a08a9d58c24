package labelindex

import (
	"cmp"
	"slices"
)

// Label is a key and its value.
type Label struct{ Key, Value string }

// Set holds the labels of an object, sorted by key. It takes a third of the memory of a map. *Set implements labels.Labels, so
// that selectors can match it without an allocation. It is immutable.
type Set []Label

// NewSet returns the set of a map of labels. It copies the map.
func NewSet(m map[string]string) Set {
	if len(m) == 0 {
		return nil
	}
	s := make(Set, 0, len(m))
	for k, v := range m {
		s = append(s, Label{k, v})
	}
	slices.SortFunc(s, func(a, b Label) int { return cmp.Compare(a.Key, b.Key) })
	return s
}

// Lookup returns the value of a label, and whether the set has it.
func (s *Set) Lookup(key string) (string, bool) {
	i, ok := slices.BinarySearchFunc(*s, key, func(l Label, k string) int { return cmp.Compare(l.Key, k) })
	if !ok {
		return "", false
	}
	return (*s)[i].Value, true
}

// Has reports whether the set has a label with the key.
func (s *Set) Has(key string) bool {
	_, ok := s.Lookup(key)
	return ok
}

// Get returns the value of a label, or "" if the set does not have it.
func (s *Set) Get(key string) string {
	v, _ := s.Lookup(key)
	return v
}
