package agent

import (
	"context"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
)

// smallHeap is the size that the heap reaches before the garbage collector runs, bytes. With the other memory of the program, it is
// within the memory request of the DaemonSet.
const smallHeap = 32 << 20

// defaultGOGC is Go's default: the collector runs when the heap has doubled since its last run.
const defaultGOGC = 100

// largestGOGC makes Go's smallest goal, 4 MiB * GOGC / 100 (https://go.dev/doc/gc-guide), smallHeap as well.
const largestGOGC = smallHeap * 100 / (4 << 20)

// relaxCollector makes the garbage collector of the process wait until the heap has smallHeap, until the context ends. By default, an
// agent with few objects would collect again and again during a burst of events, and a burst would take a third longer. A larger
// heap is collected as by default.
//
// It is not for a time in which the heap grows fast: a new GOGC may come into force only with the next run of the collector.
func relaxCollector(ctx context.Context) {
	setGOGC(ctx)
	context.AfterFunc(ctx, func() { debug.SetGCPercent(defaultGOGC) })
}

// setGOGC sets GOGC for the live heap, now and after each run of the collector.
func setGOGC(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	sample := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	runtimemetrics.Read(sample)
	live := sample[0].Value.Uint64()
	// The collector aims at live + scanned * GOGC / 100 (https://go.dev/doc/gc-guide). Before its first run, nothing is live.
	scanned := max(live, 1<<20) + sample[1].Value.Uint64() + sample[2].Value.Uint64()
	percent := defaultGOGC
	if live < smallHeap {
		percent = max(percent, min(largestGOGC, int((smallHeap-live)*100/scanned)))
	}
	debug.SetGCPercent(percent)
	if ctx.Err() != nil { // the end may have come first
		debug.SetGCPercent(defaultGOGC)
	}
	runtime.AddCleanup(new(collected), setGOGC, ctx)
}

// collected is an object that the next run of the collector frees. Smaller objects share a block, which may live longer.
type collected struct{ _ [16]byte }
