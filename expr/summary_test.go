package expr

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// TestSummarize checks that a rule has the same summary before it is sent and after it is read back from the kernel.
func TestSummarize(t *testing.T) {
	rule := func(s ...Statement) []Statement { return s }
	for name, tt := range map[string]struct {
		rule []Statement
		want Summary
	}{
		"peer and port": {rule(SourceIn(sets.V4, "peers"), PortIn("ports"), Counter(), Accept()), Summary{Sets: []string{"peers", "ports"}, Verdict: "accept"}},
		"negated":       {rule(L4Protocol().In(IsNot, "protocols"), Drop()), Summary{Sets: []string{"protocols"}, Negated: true, Verdict: "drop"}},
		"jump":          {rule(IIFName("net1"), Jump("policy")), Summary{Verdict: "jump", Chain: "policy"}},
		"goto":          {rule(Goto("interface")), Summary{Verdict: "goto", Chain: "interface"}},
		"return":        {rule(Return()), Summary{Verdict: "return"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Summarize(tt.rule)); diff != "" {
				t.Errorf("made here (-want +got):\n%s", diff)
			}
			payload, err := Marshal(Inet, tt.rule)
			if err != nil {
				t.Fatal(err)
			}
			read, err := Opaque(payload, "text")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, Summarize(rule(read))); diff != "" {
				t.Errorf("read (-want +got):\n%s", diff)
			}
			if _, err := Marshal(Inet, rule(read)); !errors.Is(err, errOpaque) {
				t.Errorf("can be sent: %v", err)
			}
		})
	}
}

// TestSummarizeUnknown checks that a rule with an unknown effect does not count as a rule without a verdict.
func TestSummarizeUnknown(t *testing.T) {
	payload, err := Marshal(Inet, []Statement{{Exprs: []expr.Any{&expr.Queue{Num: 1}}}})
	if err != nil {
		t.Fatal(err)
	}
	read, err := Opaque(payload, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := Summarize([]Statement{read}).Verdict; got != "unknown" {
		t.Errorf("verdict %q", got)
	}
	if got := Summarize([]Statement{Counter()}).Verdict; got != "" {
		t.Errorf("verdict of a counter: %q", got)
	}
}

// FuzzOpaque reads arbitrary rules, since root in a pod can put any rule into the pod's tables.
func FuzzOpaque(f *testing.F) {
	payload, err := Marshal(Inet, []Statement{SourceIn(sets.V4, "peers"), Jump("policy")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	f.Fuzz(func(t *testing.T, payload []byte) {
		if s, err := Opaque(payload, ""); err == nil {
			Summarize([]Statement{s})
		}
	})
}
