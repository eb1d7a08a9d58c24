package spelling

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	for _, tc := range []struct{ wrong, names, want string }{
		{"prots", "from ports", "ports"},
		{"podselector", "namespaceSelector podSelector", "podSelector"},
		{"selector", "ingress podSelector policyTypes", "podSelector"},
		{"ingres", "egress ingress", "ingress"},
		{"exlain", "cleanup explain render", "explain"},
		{"macvaln", "bridge ipvlan macvlan", "macvlan"},
		{"foo", "from ports", ""},
		{"", "from", ""},
		{"x", "", ""},
	} {
		if got := Nearest(tc.wrong, strings.Fields(tc.names)); got != tc.want {
			t.Errorf("%q of %q: %q, want %q", tc.wrong, tc.names, got, tc.want)
		}
	}
}
