package cache

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// selector is a compiled label selector.
type selector struct {
	// text is canonical: selectors that say the same in another order or way of writing (matchLabels, or In with one
	// value) have the same text. Keys and values are validated, so it is unambiguous. Empty: selects everything.
	text  string
	match labels.Selector
	pairs [][]label // what a match must have: one label of each list
	keys  []string  // what a match must have: a label with each key
}

// everything selects all objects.
func everything() *selector { return &selector{match: labels.Everything()} }

func newSelector(s *metav1.LabelSelector) (*selector, error) {
	match, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil, err
	}
	out := &selector{match: match}
	requirements, _ := match.Requirements()
	texts := make([]string, 0, len(requirements))
	for _, r := range requirements {
		texts = append(texts, out.require(r))
	}
	slices.Sort(texts)
	out.text = strings.Join(slices.Compact(texts), ",")
	return out, nil
}

// require notes what a requirement asks of a match and returns its canonical text.
func (s *selector) require(r labels.Requirement) string {
	key, values := r.Key(), r.Values().List()
	switch r.Operator() {
	case selection.Exists:
		s.keys = append(s.keys, key)
		return key
	case selection.DoesNotExist:
		return "!" + key
	case selection.NotIn, selection.NotEquals:
		if len(values) == 1 {
			return key + "!=" + values[0]
		}
		return key + " notin (" + strings.Join(values, ",") + ")"
	}
	pairs := make([]label, 0, len(values))
	for _, v := range values {
		pairs = append(pairs, label{key, v})
	}
	s.pairs = append(s.pairs, pairs)
	if len(values) == 1 {
		return key + "=" + values[0]
	}
	return key + " in (" + strings.Join(values, ",") + ")"
}

// all says whether it selects everything.
func (s *selector) all() bool { return s.text == "" }

func (s *selector) matches(l *labelSet) bool { return s.all() || s.match.Matches(l) }
