package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// attempts are what root in the pod may try.
var attempts = []string{
	"flush ruleset",
	"flush table inet multi_networkpolicy",
	"delete table inet multi_networkpolicy",
	"flush chain inet multi_networkpolicy prerouting; delete chain inet multi_networkpolicy prerouting",
	"flush chain inet multi_networkpolicy ingress-net1",
	"insert rule inet multi_networkpolicy ingress-net1 accept",
	"insert rule inet multi_networkpolicy prerouting accept",
	"add chain inet multi_networkpolicy more { type filter hook input priority -10; }",
	"add table inet multi_networkpolicy { flags dormant; }",
}

// TestDrift: what root in the pod does to the table is refused where it has an owner, and elsewhere undone within a
// second, counted and logged.
func TestDrift(t *testing.T) { onBothPaths(t, testDrift) }

func testDrift(t *testing.T, own bool) {
	w := newSettledWorld(t, own)
	want, _ := w.table("server")
	sink := lab.NewSink(t, w.hosts["server"])
	bad := lab.StartFlood(t, w.hosts["forbidden"], netip.AddrPortFrom(w.addrs["server"], lab.FloodPort), lab.ForbiddenPatience)
	repairs := 0.0
	for _, attempt := range attempts {
		w.log.Take(0)
		out, err := w.nft("server", attempt)
		start := time.Now()
		switch {
		case own && err == nil && attempt != "flush ruleset": // nft leaves owned tables alone
			t.Errorf("%s: nobody refused it", attempt)
		case !own && err != nil:
			t.Errorf("%s: %v %s", attempt, err, out)
		case !own:
			repairs++
			if attempt == "flush ruleset" {
				repairs++ // both tables
			}
		}
		node.Eventually(t, attempt, func() bool { is, _ := w.table("server"); return is == want })
		if took := time.Since(start); took > time.Second {
			t.Errorf("%s: repaired after %s", attempt, took)
		}
		node.Eventually(t, attempt+": counted", func() bool { return testutil.ToFloat64(w.metrics.repairs) == repairs })
		if log := w.log.Take(100); !own && !strings.Contains(log, "Table repaired") {
			t.Errorf("%s: logged %q", attempt, log)
		}
	}
	bad.End()
	if own {
		sink.HasNothingFrom(t, w.addrs["forbidden"], bad)
	}
	w.settle()
}
