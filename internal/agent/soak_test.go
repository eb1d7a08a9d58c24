package agent

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

var (
	soakDuration = flag.Duration("soak.duration", 4*time.Second, "how long TestSoak lasts")
	soakRound    = flag.Duration("soak.round", 2*time.Second, "time between two lines of TestSoak")
)

// TestSoak is TestNoLeak for hours: `make soak`. It prints a line for each round, and checks packets and resources in each: after
// the first round the process keeps no more descriptors, goroutines or memory, however long the agents run.
func TestSoak(t *testing.T) {
	features, err := engine.Probe()
	if err != nil {
		t.Fatal(err)
	}
	w := newLeakWorld(t, rand.New(rand.NewPCG(rand.Uint64(), 0)), features.Owner)
	w.tables.rand, w.tables.made = rand.New(rand.NewPCG(rand.Uint64(), 1)), map[string]int{}
	w.start()
	defer func() { w.stop() }()
	w.settle()
	changes, begin := 0, time.Now()
	var first resources
	for time.Since(begin) < *soakDuration && !t.Failed() {
		sent := uint64(0)
		t.Run("round", func(t *testing.T) { sent = w.soakRound(t, &changes) })
		lines := w.log.Take(100_000) // else the log of this test grows for hours
		now := resourcesNow(t)
		if first == (resources{}) {
			first = now
		}
		verdict := "none forbidden arrived, none lost"
		if t.Failed() {
			verdict = "with faults, see above"
		}
		t.Logf("%s: %d changes, %d restarts, %d datagrams allowed in this round, %s; %s",
			time.Since(begin).Round(time.Second), changes, w.restarts, sent, verdict, now)
		if now.descriptors > first.descriptors+20 || now.goroutines > first.goroutines+20 || now.heap > 2*first.heap+16<<20 {
			t.Errorf("the process keeps more and more: %s after the first round, %s now", first, now)
		}
		if t.Failed() {
			t.Logf("the agents' log:\n%s", lines)
		}
	}
}

// soakRound changes the state for a round while packets are in flight. It returns the number of allowed datagrams.
func (w *leakWorld) soakRound(t *testing.T, changes *int) uint64 {
	server, other := lab.NewSink(t, w.server()), lab.NewSink(t, w.hosts["forbidden"])
	to := func(name string) netip.AddrPort { return netip.AddrPortFrom(w.addrs[name], lab.FloodPort) }
	good := lab.StartFlood(t, w.hosts["allowed"], to("server"), lab.AllowedPatience)
	bad := lab.StartFlood(t, w.hosts["forbidden"], to("server"), lab.ForbiddenPatience)
	out := lab.StartFlood(t, w.hosts["allowed"], to("forbidden"), lab.ForbiddenPatience)
	for end := time.Now().Add(*soakRound); time.Now().Before(end); *changes++ {
		w.step(*changes)
	}
	w.settle()
	for _, f := range []*lab.Flood{good, bad, out} {
		f.End()
	}
	time.Sleep(100 * time.Millisecond) // what is in flight arrives
	if lab.LosesLookups(t) {
		t.Log("SKIPPED in part: with several CPUs, this kernel may drop a packet that the old and the new table allow (hack/kernels -cpus 1)")
	} else {
		server.HasAllFrom(t, w.addrs["allowed"], good)
	}
	server.HasNothingFrom(t, w.addrs["forbidden"], bad)
	other.HasNothingFrom(t, w.addrs["allowed"], out)
	return good.Sent.Load()
}

// resources are what the process holds.
type resources struct {
	descriptors, goroutines int
	heap                    uint64 // bytes in use after a garbage collection
}

func resourcesNow(t *testing.T) resources {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return resources{len(open), runtime.NumGoroutine(), m.HeapAlloc}
}

// String returns the resources in words.
func (r resources) String() string {
	return fmt.Sprintf("%d descriptors, %d goroutines, heap %.1f MiB", r.descriptors, r.goroutines, float64(r.heap)/(1<<20))
}
