package expr_test

import (
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

func FuzzCanonical(f *testing.F) {
	for _, s := range vocabulary() {
		b, err := expr.Marshal(expr.Inet, []expr.Statement{s})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		one, err := expr.Canonical(payload)
		two, again := expr.Canonical(payload)
		if one != two || (err == nil) != (again == nil) {
			t.Errorf("%x is once %q (%v) and once %q (%v)", payload, one, err, two, again)
		}
	})
}
