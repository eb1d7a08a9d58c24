package agent

import (
	"runtime"
	runtimemetrics "runtime/metrics"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
)

// gogc returns the current GOGC of the process, and goal the size of the heap at which the collector runs next, bytes.
func gogc() uint64 { return runtimeMetric("/gc/gogc:percent") }
func goal() uint64 { return runtimeMetric("/gc/heap/goal:bytes") }

func runtimeMetric(name string) uint64 {
	sample := []runtimemetrics.Sample{{Name: name}}
	runtimemetrics.Read(sample)
	return sample[0].Value.Uint64()
}

// TestRelaxCollector: the collector waits for a small heap, and treats a large heap as by default.
func TestRelaxCollector(t *testing.T) {
	relaxCollector(t.Context())
	func() {
		large := make([]byte, 2*smallHeap)
		defer runtime.KeepAlive(large)
		// An object that is made while the collector runs lives until the next run.
		await.That(t, "the default for a large heap", func() bool { runtime.GC(); return gogc() == defaultGOGC })
	}()
	await.That(t, "a relaxed collector for a small heap", func() bool { runtime.GC(); return gogc() > defaultGOGC })

	if n := goal(); n > smallHeap*5/4 { // stacks and globals are not in the formula's live heap
		t.Errorf("the collector waits for %d bytes", n)
	}

	before := collections()
	for range 3 { // by default, a heap of a few MiB would be collected several times
		garbage = make([]byte, 4<<20)
	}
	if n := collections() - before; n > 1 {
		t.Errorf("%d collections for 12 MiB of garbage", n)
	}
}

// garbage keeps the compiler from placing garbage on the stack.
var garbage []byte

// collections returns the number of runs of the collector.
func collections() uint32 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.NumGC
}
