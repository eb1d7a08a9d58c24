package cache

import (
	"cmp"
	"slices"
)

// label is one key and its value.
type label struct{ key, value string }

// labelSet is an object's labels sorted by key: a third of the size of a map. It implements labels.Labels by pointer,
// so that passing it allocates nothing.
type labelSet []label

func newLabelSet(m map[string]string) labelSet {
	if len(m) == 0 {
		return nil
	}
	s := make(labelSet, 0, len(m))
	for k, v := range m {
		s = append(s, label{k, v})
	}
	slices.SortFunc(s, func(a, b label) int { return cmp.Compare(a.key, b.key) })
	return s
}

// equal says whether the set is the map.
func (s labelSet) equal(m map[string]string) bool {
	if len(s) != len(m) {
		return false
	}
	for _, l := range s {
		if v, ok := m[l.key]; !ok || v != l.value {
			return false
		}
	}
	return true
}

// Lookup returns the value of a label, and whether there is one.
func (s *labelSet) Lookup(key string) (string, bool) {
	i, ok := slices.BinarySearchFunc(*s, key, func(l label, k string) int { return cmp.Compare(l.key, k) })
	if !ok {
		return "", false
	}
	return (*s)[i].value, true
}

// Has says whether there is a label with the key.
func (s *labelSet) Has(key string) bool {
	_, ok := s.Lookup(key)
	return ok
}

// Get returns the value of a label, empty when there is none.
func (s *labelSet) Get(key string) string {
	v, _ := s.Lookup(key)
	return v
}
