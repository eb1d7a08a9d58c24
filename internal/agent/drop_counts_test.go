package agent

import (
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/reconciler"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// TestDropsAreCountedOnce: after an error, the reconciler opens the tables of a pod again. Their counters in the kernel go on, and the
// metric must not have the earlier packets twice. After the last policy of a pod, the tables are deleted. New tables count from zero, and
// the kernel gives their rules the handles of the earlier rules.
func TestDropsAreCountedOnce(t *testing.T) {
	w := newSettledWorld(t, false)
	w.stop() // the tables stay, and only this test reads the counters
	defer func(interval time.Duration) { dropCountsInterval = interval }(dropCountsInterval)
	dropCountsInterval = 0
	server := cache.Key{Namespace: "default", Name: "server"}
	w.metrics.drops.meet(server)
	total := w.metrics.drops.counters[0].WithLabelValues(server.Namespace, server.Name, "ingress", "dropped")
	before := testutil.ToFloat64(total)
	socket, err := w.hosts["forbidden"].DialUDP(netip.AddrPortFrom(w.addrs["server"], lab.FloodPort))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	target, _ := w.state.Plan(cache.PodID{Key: server, UID: w.pods["server"].UID})
	open := w.metrics.meter(reconciler.OpenNamespace(engine.Features{}))
	apply := func(tables engine.Tables, read func(reconciler.Table) (changed bool, err error)) {
		t.Helper()
		table, err := open(server.String(), w.hosts["server"].NetNS())
		if err != nil {
			t.Fatal(err)
		}
		if err := table.Apply(t.Context(), tables); err != nil {
			t.Fatal(err)
		}
		if _, err := read(table); err != nil {
			t.Fatal(err)
		}
		if err := table.Close(); err != nil {
			t.Fatal(err)
		}
	}
	read := func(table reconciler.Table) (bool, error) { return table.Changed(t.Context()) }
	unread := func(reconciler.Table) (bool, error) { return false, nil }
	check := func(packets int, want float64) {
		t.Helper()
		for range packets {
			if _, err := socket.Write([]byte{0}); err != nil {
				t.Fatal(err)
			}
		}
		apply(target.Tables, read) // it finds the tables as they should be
		if got := testutil.ToFloat64(total) - before; got != want {
			t.Errorf("%v packets are counted, want %v", got, want)
		}
	}
	check(3, 3)
	check(0, 3)
	check(2, 5)
	apply(engine.Tables{}, unread)
	apply(target.Tables, unread)
	check(7, 12)
	// Nothing is left of a pod that is deleted, also if its table is closed later.
	w.metrics.drops.forget(server)
	w.metrics.drops.keep(server, "netns", readings{drops: w.metrics.drops.add(server, counted{}, nil)})
	if n := len(w.metrics.drops.closed); n != 0 {
		t.Errorf("readings of %d pods are left", n)
	}
}
