package agent

import (
	"runtime"
	runtimemetrics "runtime/metrics"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
)

// gogc returns the current GOGC of the process.
func gogc() uint64 {
	sample := []runtimemetrics.Sample{{Name: "/gc/gogc:percent"}}
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
