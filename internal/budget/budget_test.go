package budget

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(2, 5, time.Minute)
		allowed := func(object, namespace string, tries int) (n int) {
			for range tries {
				if b.Allow(object, namespace) {
					n++
				}
			}
			return n
		}
		if got := allowed("ns/a", "ns", 10); got != 2 {
			t.Errorf("one object: %d, want 2", got)
		}
		if got := allowed("ns/b", "ns", 2) + allowed("ns/c", "ns", 2); got != 3 {
			t.Errorf("further objects of the namespace: %d, want 3", got)
		}
		if got := allowed("other/a", "other", 10); got != 2 {
			t.Errorf("another namespace: %d, want 2", got)
		}
		if got := b.Refused(); got != 8+1+8 {
			t.Errorf("refused: %d", got)
		}
		time.Sleep(time.Minute)
		if got := allowed("ns/a", "ns", 10); got != 1 {
			t.Errorf("a minute later: %d, want 1", got)
		}
		time.Sleep(time.Hour)
		if got := allowed("ns/a", "ns", 10); got != 2 {
			t.Errorf("an hour later: %d, want 2: a bucket never holds more than its size", got)
		}
	})
}

// The buckets of objects that are gone do not stay in memory.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(2, 5, time.Minute)
		for i := range 10_000 {
			b.Allow(fmt.Sprint("ns/", i), fmt.Sprint("ns-", i))
		}
		time.Sleep(time.Hour)
		b.Allow("ns/last", "ns")
		if len(b.objects) > 1 || len(b.namespaces) > 1 {
			t.Errorf("%d objects and %d namespaces are left", len(b.objects), len(b.namespaces))
		}
	})
}
