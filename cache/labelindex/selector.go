package labelindex

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// Selector is a compiled label selector.
type Selector struct {
	text  string
	match labels.Selector
	pairs [][]Label // a match has one label of each list
	keys  []string  // a match has a label with each key
}

// Everything returns the selector that matches all objects.
func Everything() *Selector { return &Selector{match: labels.Everything()} }

// Compile reads a selector of the API.
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

// anchor notes the labels that a requirement demands of each match.
func (s *Selector) anchor(r labels.Requirement) {
	switch r.Operator() {
	case selection.Exists:
		s.keys = append(s.keys, r.Key())
	case selection.In, selection.Equals, selection.DoubleEquals:
		values := r.Values().List()
		pairs := make([]Label, 0, len(values))
		for _, v := range values {
			pairs = append(pairs, Label{r.Key(), v})
		}
		s.pairs = append(s.pairs, pairs)
	}
}

// requirementText is the canonical text of a requirement.
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

// String is canonical: selectors that demand the same in another order or form (matchLabels, or In with one value)
// have the same text. Keys and values are valid labels, so the text is unambiguous. Empty: matches everything.
func (s *Selector) String() string { return s.text }

// MatchesAll reports whether the selector matches every object.
func (s *Selector) MatchesAll() bool { return s.text == "" }

// Size returns the number of the selector's requirements and of their values.
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

// Pairs returns lists of labels: each match has one label of each list.
func (s *Selector) Pairs() [][]Label { return s.pairs }

// Unmet returns, sorted, the requirements that the labels do not meet, each with the label that the object has instead.
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
