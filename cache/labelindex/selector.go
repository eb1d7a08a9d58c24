package labelindex

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// Selector is a compiled label selector. It is immutable.
type Selector struct {
	text  string // canonical
	match labels.Selector
	// pairs and keys are conditions that hold for every matching object. They are necessary, not sufficient.
	pairs [][]Label // a matching object has a label of each list
	keys  []string  // a matching object has a label with each key
}

// Everything returns the selector that matches all objects.
func Everything() *Selector { return &Selector{match: labels.Everything()} }

// Compile compiles a selector of the API. It returns an error for an invalid operator, key or value.
func Compile(s *metav1.LabelSelector) (*Selector, error) {
	match, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil, err
	}
	out := &Selector{match: match}
	requirements, _ := match.Requirements()
	texts := make([]string, 0, len(requirements))
	for _, r := range requirements {
		texts = append(texts, requirementText(r))
		out.anchor(r)
	}
	slices.Sort(texts)
	out.text = strings.Join(slices.Compact(texts), ",")
	return out, nil
}

// anchor adds the labels or the key that a requirement demands of every matching object. NotIn and DoesNotExist demand none.
func (s *Selector) anchor(r labels.Requirement) {
	switch r.Operator() {
	case selection.Exists:
		s.keys = append(s.keys, r.Key())
	case selection.In, selection.Equals, selection.DoubleEquals:
		values := r.Values().List()
		pairs := make([]Label, 0, len(values))
		for _, v := range values {
			// The labels for the values of a requirement with the operator In, and a single label for other operators.
			pairs = append(pairs, Label{r.Key(), v})
		}
		s.pairs = append(s.pairs, pairs)
	}
}

// requirementText returns the canonical text of a requirement, in the syntax of kubectl.
func requirementText(r labels.Requirement) string {
	key, values := r.Key(), r.Values().List()
	switch r.Operator() {
	case selection.Exists:
		return key
	case selection.DoesNotExist:
		return "!" + key
	case selection.NotIn, selection.NotEquals:
		if len(values) == 1 {
			return key + "!=" + values[0]
		}
		return key + " notin (" + strings.Join(values, ",") + ")"
	}
	if len(values) == 1 {
		return key + "=" + values[0]
	}
	return key + " in (" + strings.Join(values, ",") + ")"
}

// String returns the selector in the syntax of kubectl, or "" for the selector that matches everything. The text is canonical:
// selectors with equal requirements in a different order or form (such as matchLabels, or In with a single value) have the same
// text. It is unambiguous, since keys and values are valid labels.
func (s *Selector) String() string { return s.text }

// MatchesAll reports whether the selector matches every object.
func (s *Selector) MatchesAll() bool { return s.text == "" }

// Size returns the number of requirements plus the number of their values: a measure of the memory and time that the
// selector costs.
func (s *Selector) Size() int {
	requirements, _ := s.match.Requirements()
	n := len(requirements)
	for _, r := range requirements {
		n += r.Values().Len()
	}
	return n
}

// Matches reports whether the selector matches an object with these labels.
func (s *Selector) Matches(l *Set) bool { return s.MatchesAll() || s.match.Matches(l) }

// Pairs returns lists of labels. A matching object has a label of each list. The caller must not change the lists.
func (s *Selector) Pairs() [][]Label { return s.pairs }

// Unmet describes the requirements that the labels do not meet, each with the object's own label, sorted. It is for explanations.
func (s *Selector) Unmet(l *Set) []string {
	requirements, _ := s.match.Requirements()
	var unmet []string
	for _, r := range requirements {
		if r.Matches(l) {
			continue
		}
		text := "label " + requirementText(r) + " wanted"
		if value, has := l.Lookup(r.Key()); has {
			text += ", the pod has " + r.Key() + "=" + value
		} else {
			text += ", the pod has no " + r.Key()
		}
		unmet = append(unmet, text)
	}
	slices.Sort(unmet)
	return unmet
}
