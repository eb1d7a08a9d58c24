package policy

import (
	"encoding/json"
	"strings"
	"testing"
)

// policyTypes may fill an object of 1.5 MB. The items after the listed problems are counted, but not decoded.
func TestManyUnknownTypes(t *testing.T) {
	const items = 100_000
	s := spec{PolicyTypes: json.RawMessage(`["Ingress",` + strings.TrimSuffix(strings.Repeat(`"x",`, items), ",") + `]`)}
	isolates, _ := isolatedDirections(s, &Problems{})
	if !isolates[0] || !isolates[1] {
		t.Errorf("isolates %v", isolates)
	}
	var ps Problems
	allocs := testing.AllocsPerRun(1, func() { ps = Problems{}; isolatedDirections(s, &ps) })
	if allocs > items*3/2 {
		t.Errorf("%.0f allocations for %d items", allocs, items)
	}
	if n := len(ps.list) + ps.more; n != items {
		t.Errorf("%d problems", n)
	}
}
