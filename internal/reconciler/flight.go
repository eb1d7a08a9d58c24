package reconciler

import (
	"slices"
	"sync"
)

// InFlightMemory bounds the tables that are applied or read back at the same time, in bytes of their kernel memory. While a
// table is applied, the kernel may hold the new sets besides the old sets, and the agent holds their differences and messages:
// each of the two takes no more memory than the table.
const InFlightMemory = 64 << 20

// smallTable is the size of tables that are applied at any time, in bytes. A node has at most some hundred workers, so
// these tables have a bound too.
const smallTable = 128 << 10

// flight admits tables while their sum is within the bound. Of the tables that wait, the smallest is next, so a large
// table of a tenant does not hold up the tables of other tenants.
type flight struct {
	// mu guards free and waiting.
	mu      sync.Mutex
	bound   int // of free
	free    int
	waiting []*boarding // smallest first
}

// boarding is a table that waits for admission. ready is closed at the admission.
type boarding struct {
	bytes int
	ready chan struct{}
}

func newFlight(bytes int) *flight { return &flight{bound: bytes, free: bytes} }

// enter waits until a table fits, and returns the function with which the caller gives its bytes back. A table beyond
// the bound counts as the bound, so no other large table is applied beside it.
func (f *flight) enter(bytes int) (leave func()) {
	if bytes <= smallTable {
		return func() {}
	}
	b := &boarding{min(bytes, f.bound), make(chan struct{})}
	f.mu.Lock()
	i, _ := slices.BinarySearchFunc(f.waiting, b, func(a, b *boarding) int {
		if a.bytes <= b.bytes {
			return -1 // behind tables of the same size
		}
		return 1
	})
	f.waiting = slices.Insert(f.waiting, i, b)
	f.admit()
	f.mu.Unlock()
	<-b.ready
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.free += b.bytes
		f.admit()
	}
}

// admit admits tables from the front as long as they fit. The caller holds mu.
func (f *flight) admit() {
	for len(f.waiting) > 0 && f.waiting[0].bytes <= f.free {
		f.free -= f.waiting[0].bytes
		close(f.waiting[0].ready)
		f.waiting = f.waiting[1:]
	}
}
