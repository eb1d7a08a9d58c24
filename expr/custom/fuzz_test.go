package custom_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/custom"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// FuzzParse checks that any input gives rules or an error with a position. Rules must have bytecode, and their text, as nft
// prints it, must parse to the same rules.
func FuzzParse(f *testing.F) {
	for _, family := range sets.Families {
		for _, form := range forms(family) {
			f.Add(form.line, family == sets.V6)
		}
	}
	f.Add("accept\n\n# x\nip saddr { 10.0.0.0/8, 11.0.0.1-12.0.0.1 } log prefix \"a b\" reject with tcp reset", false)
	f.Add("ip6 saddr fe80::1%net1-", true)
	f.Fuzz(func(t *testing.T, file string, isV6 bool) {
		family := sets.V4
		if isV6 {
			family = sets.V6
		}
		rules, err := custom.Parse("file", strings.NewReader(file), family)
		if err != nil {
			var syntax *custom.SyntaxError
			lines := strings.Split(file, "\n")
			switch {
			case !errors.As(err, &syntax):
				t.Error(err)
			case syntax.Line < 1 || syntax.Line > len(lines), syntax.Column < 1 || syntax.Column > len(lines[syntax.Line-1])+1:
				t.Errorf("%v: no such place", err)
			case strings.Contains(err.Error(), "\n"):
				t.Errorf("more than a line: %q", err)
			}
			return
		}
		for _, r := range rules.Rules {
			b, err := expr.Marshal(expr.Inet, r.Statements)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := expr.Canonical(b); err != nil {
				t.Fatal(err)
			}
		}
		again, err := custom.Parse("printed", strings.NewReader(strings.Join(textOf(rules, true), "\n")), family)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(text(rules), text(again)); diff != "" {
			t.Errorf("read again (-first +second):\n%s", diff)
		}
	})
}
