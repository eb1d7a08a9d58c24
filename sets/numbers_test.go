package sets

import (
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNumbers(t *testing.T) {
	const last = math.MaxUint32
	for _, tt := range []struct {
		name     string
		in, want []NumberRange
	}{
		{"none", nil, nil},
		{"not valid", []NumberRange{{2, 1}}, nil},
		{"sorted", []NumberRange{{8, 8}, {1, 2}}, []NumberRange{{1, 2}, {8, 8}}},
		{"neighbors", []NumberRange{{3, 4}, {1, 2}, {5, 5}}, []NumberRange{{1, 5}}},
		{"overlap", []NumberRange{{1, 9}, {2, 3}, {5, 12}}, []NumberRange{{1, 12}}},
		{"both ends", []NumberRange{{last, last}, {0, 0}}, []NumberRange{{0, 0}, {last, last}}},
		{"all", []NumberRange{{7, last}, {last, last}, {0, 6}}, []NumberRange{{0, last}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := slices.Clone(tt.in)
			s := NewNumbers(in...)
			if diff := cmp.Diff(tt.want, slices.Collect(s.Ranges())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.in, in); diff != "" {
				t.Errorf("the input changed:\n%s", diff)
			}
			if s.Len() != len(tt.want) || s.IsEmpty() != (len(tt.want) == 0) || !s.Equal(NewNumbers(tt.want...)) {
				t.Errorf("%v: Len %d, IsEmpty %v", s, s.Len(), s.IsEmpty())
			}
			for _, n := range []uint32{0, 1, 4, 6, 12, 13, last} {
				want := slices.ContainsFunc(tt.in, func(r NumberRange) bool { return r.From <= n && n <= r.To })
				if got := s.Contains(n); got != want {
					t.Errorf("Contains(%d) is %v", n, got)
				}
			}
		})
	}
}
