package agent

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// attempts are what root in the pod may try on a table.
var attempts = []string{
	"flush ruleset",
	"flush table FAMILY multi_networkpolicy",
	"delete table FAMILY multi_networkpolicy",
	"flush chain FAMILY multi_networkpolicy prerouting; delete chain FAMILY multi_networkpolicy prerouting",
	"flush chain FAMILY multi_networkpolicy ingress-net1",
	"insert rule FAMILY multi_networkpolicy ingress-net1 accept",
	"insert rule FAMILY multi_networkpolicy prerouting accept",
	"add chain FAMILY multi_networkpolicy more { type filter hook input priority -10; }",
	"add table FAMILY multi_networkpolicy { flags dormant; }",
}

// TestDrift: what root in the pod does to a table is refused where the table has an owner. Elsewhere, the agent repairs the table,
// counts the repair and logs it.
func TestDrift(t *testing.T) {
	onBothPaths(t, func(t *testing.T, own bool) {
		testDrift(t, newLeakWorld(t, rand.New(rand.NewPCG(1, 1)), own), engine.Inet)
	})
}

// TestDriftInBridge is TestDrift for the second table of a virtual machine, also where that table can only drop.
func TestDriftInBridge(t *testing.T) {
	onBothPaths(t, func(t *testing.T, own bool) {
		w := newLeakWorld(t, rand.New(rand.NewPCG(1, 1)), own)
		w.virtualize()
		w.options.Bridge, _ = ProbeBridge(w.options)
		testDrift(t, w, engine.Bridge)
	})
}

func testDrift(t *testing.T, w *leakWorld, family expr.TableFamily) {
	own := w.own
	w.start()
	defer func() { w.stop() }()
	w.settle()
	want, _ := w.table("server")
	sink := lab.NewSink(t, w.server())
	bad := lab.StartFlood(t, w.hosts["forbidden"], netip.AddrPortFrom(w.addrs["server"], lab.FloodPort), lab.ForbiddenPatience)
	repairs, fastest := 0.0, time.Hour
	for _, attempt := range attempts {
		attempt = strings.ReplaceAll(attempt, "FAMILY", family.String())
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
		await.That(t, attempt, func() bool { is, _ := w.table("server"); return is == want })
		// The agent looks twice a second. A busy machine takes longer now and then, and with the race detector much longer.
		took := time.Since(start)
		if fastest = min(fastest, took); took > 5*time.Second {
			t.Errorf("%s: repaired after %s", attempt, took)
		}
		await.That(t, attempt+": counted", func() bool { return testutil.ToFloat64(w.metrics.repairs) == repairs })
		said := "" // the line may come a moment after the count
		await.That(t, attempt+": logged", func() bool { said += w.log.Take(100); return own || strings.Contains(said, "Table repaired") })
	}
	if fastest > time.Second {
		t.Errorf("no repair was faster than %s", fastest)
	}
	bad.End()
	if own {
		sink.HasNothingFrom(t, w.addrs["forbidden"], bad)
	}
	w.settle()
}
