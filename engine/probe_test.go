package engine

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// TestTry: what the kernel refuses is known before any pod is touched.
func TestTry(t *testing.T) {
	if err := Try(Inet, isolated(parseAddrs("10.0.0.1"), 80)); err != nil {
		t.Error(err)
	}
	if err := Try(Inet, Ruleset{}); err != nil {
		t.Error(err)
	}
	bad := NewRuleset(nil, []*Chain{{Name: "c", Rules: []Rule{{Statements: []expr.Statement{expr.Jump("missing")}}}}})
	var refused *nfnl.MessageError
	if err := Try(Inet, bad); !errors.Is(err, unix.ENOENT) || !errors.As(err, &refused) {
		t.Errorf("error: %v", err)
	}
}
