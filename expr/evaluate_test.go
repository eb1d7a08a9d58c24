package expr_test

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// A concatenation is looked up by the bytes of all of its registers. The engine's tests judge packets by these lookups.
func TestEvaluateConcatenation(t *testing.T) {
	p4 := expr.Packet{Family: sets.V4, Destination: netip.MustParseAddr("10.0.0.1"), Protocol: 6, DestinationPort: 80}
	p6 := p4
	p6.Family, p6.Destination = sets.V6, netip.MustParseAddr("fd00::1")
	protocol, port := []byte{6, 0, 0, 0}, []byte{0, 80, 0, 0}
	for _, tt := range []struct {
		statement expr.Statement
		packet    expr.Packet
		key       []byte
	}{
		{expr.PortIn("s"), p4, slices.Concat(port, protocol)},
		{expr.DestinationEndpointIn(sets.V4, "s"), p4, slices.Concat(p4.Destination.AsSlice(), protocol, port)},
		{expr.DestinationEndpointIn(sets.V6, "s"), p6, slices.Concat(p6.Destination.AsSlice(), protocol, port)},
	} {
		lookup := func(string) (int, func([]byte) bool) {
			return len(tt.key), func(key []byte) bool { return bytes.Equal(key, tt.key) }
		}
		got, err := expr.Evaluate([]expr.Statement{tt.statement, expr.Accept()}, tt.packet, lookup)
		if want := (expr.Outcome{Verdict: "accept"}); got != want || err != nil {
			t.Errorf("%s: %+v, %v", tt.statement.Text, got, err)
		}
	}
}
