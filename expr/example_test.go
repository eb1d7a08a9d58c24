package expr_test

import (
	"fmt"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// A rule is a list of statements. Each statement has its nft text; Marshal makes the bytecode for the kernel.
func Example() {
	rule := []expr.Statement{
		expr.SourceIn(sets.V4, "peers"),
		expr.DestinationPort(expr.TCP).Range(expr.Is, sets.NumberRange{From: 80, To: 80}),
		expr.Accept(),
	}
	for _, s := range rule {
		fmt.Println(s.Text)
	}
	bytecode, err := expr.Marshal(expr.Inet, rule)
	fmt.Println(len(bytecode) > 0, err)
	s := expr.Summarize(rule)
	fmt.Println(s.Sets, s.Verdict)
	// Output:
	// ip saddr @peers
	// tcp dport 80
	// accept
	// true <nil>
	// [peers] accept
}

// Evaluate predicts the effect of a rule on a packet.
func ExampleEvaluate() {
	rule := []expr.Statement{expr.DestinationPort(expr.TCP).Range(expr.Is, sets.NumberRange{From: 80, To: 80}), expr.Drop()}
	noSets := func(string) (int, func([]byte) bool) { return 0, nil }
	for _, port := range []uint16{80, 443} {
		outcome, err := expr.Evaluate(rule, expr.Packet{Family: sets.V4, Protocol: 6, DestinationPort: port}, noSets)
		fmt.Printf("%d %q %v\n", port, outcome.Verdict, err)
	}
	// Output:
	// 80 "drop" <nil>
	// 443 "" <nil>
}
