package reconciler

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// However many tables come, their sum stays within the bound, and all of them get their turn.
func TestFlight(t *testing.T) {
	f := newFlight(InFlightMemory)
	var all sync.WaitGroup
	var sum, most atomic.Int64
	for range 200 {
		bytes := smallTable + 1 + rand.IntN(2*InFlightMemory)
		all.Go(func() {
			leave := f.enter(bytes)
			now := sum.Add(int64(min(bytes, InFlightMemory)))
			for before := most.Load(); now > before && !most.CompareAndSwap(before, now); before = most.Load() {
			}
			time.Sleep(time.Duration(rand.IntN(200)) * time.Microsecond)
			sum.Add(-int64(min(bytes, InFlightMemory)))
			leave()
		})
	}
	all.Wait()
	if most.Load() > InFlightMemory {
		t.Errorf("%d bytes in flight", most.Load())
	}
	if f.free != InFlightMemory || len(f.waiting) > 0 {
		t.Errorf("%d bytes free, %d waiting", f.free, len(f.waiting))
	}
}

// A small table waits for no other, and of larger tables the smallest is next.
func TestFlightOrder(t *testing.T) {
	f := newFlight(InFlightMemory)
	leave := f.enter(InFlightMemory)
	f.enter(smallTable)()
	got := make(chan int, 2)
	for _, bytes := range []int{2 * smallTable, 3 * smallTable} {
		go func() { f.enter(bytes); got <- bytes }()
	}
	waitFor(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.waiting) == 2 })
	if f.waiting[0].bytes != 2*smallTable {
		t.Errorf("the first has %d bytes", f.waiting[0].bytes)
	}
	leave()
	<-got
	<-got
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time")
		}
	}
}

// A table beyond the bound of a small flight enters when nothing else is applied.
func TestSmallFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		newFlight(2 * smallTable).enter(InFlightMemory)()
	})
}
