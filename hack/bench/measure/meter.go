package main

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/report"
)

// samples are the runs of an event in a way.
type samples struct {
	// Programs that run in parallel on several cores add up, so cpu can exceed the sum of took.
	took  report.Samples
	cpu   time.Duration // of all runs: this process and the programs that it waited for
	bytes uint64        // of the last run
	// allocs is a number of allocations, not of bytes. Runs of nft allocate in another process and do not count.
	allocs uint64        // of the last counted run, in this process
	spent  time.Duration // including preparations
}

// cpuEach returns the mean CPU time of a run, without the cost of the measurement itself. Runs that only
// counted allocations are not in it.
func (s *samples) cpuEach() time.Duration {
	if len(s.took) == 0 {
		return 0
	}
	return max(0, s.cpu/time.Duration(len(s.took))-cpuOverhead)
}

// cpuOverhead is the CPU time of an empty measurement.
var cpuOverhead = func() time.Duration {
	const n = 1000
	var sum time.Duration
	for range n {
		before := cpuTime()
		sum += cpuTime() - before
	}
	return sum / n
}()

// cpuTime returns the CPU time of this process and its ended children.
func cpuTime() time.Duration {
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if unix.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}

// measure runs an event once and records its time or its allocations. It cannot record both: counting allocations stops the
// world.
// The measured time starts after prepare and the pause, and ends when run returns: at the acknowledgement of the last
// pod. It includes garbage collections that happen to run then, also those that an earlier run caused.
func (s *samples) measure(w way, e event, count bool) error {
	start := time.Now()
	if err := w.prepare(e); err != nil {
		return err
	}
	if e.alone {
		pause()
	}
	var before runtime.MemStats
	if count {
		runtime.ReadMemStats(&before)
	}
	sent, cpu, began := w.sent(), cpuTime(), time.Now()
	err := w.run(e)
	took, used := time.Since(began), cpuTime()-cpu
	if err != nil {
		return err
	}
	s.bytes = w.sent() - sent
	if count {
		var after runtime.MemStats
		runtime.ReadMemStats(&after)
		s.allocs = after.Mallocs - before.Mallocs
	} else {
		s.took, s.cpu = append(s.took, took), s.cpu+used
	}
	// A way whose preparation is slow gets fewer samples, since its budget counts preparations.
	s.spent += time.Since(start)
	return nil
}
