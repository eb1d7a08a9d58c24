package reconciler

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

func podIn(namespace string, n int) cache.PodID {
	name := fmt.Sprint("pod-", n)
	return cache.PodID{Key: cache.Key{Namespace: namespace, Name: name}, UID: types.UID(namespace + name)}
}

// A namespace within its share always gets what it asks for, whatever others have taken before.
func TestMemoryShares(t *testing.T) {
	m := newMemory(Budget{1000, 1000})
	for i := range 9 {
		if exceeds, again := m.admit(podIn("evil", i), 100); exceeds != "" || len(again) > 0 {
			t.Fatalf("pod %d: %v, %v, while there is room", i, exceeds, again)
		}
	}
	if exceeds, _ := m.admit(podIn("evil", 9), 200); exceeds == "" {
		t.Error("over the budget, and admitted")
	}
	m.book(podIn("evil", 9), 1)
	exceeds, again := m.admit(podIn("good", 0), 300)
	if exceeds != "" || len(again) != 10 {
		t.Errorf("a small namespace: %v, again %v", exceeds, again)
	}
	refused := 0
	for _, pod := range again { // the reconciler looks at them again
		if exceeds, _ := m.admit(pod, map[bool]int{true: 200, false: 100}[pod == podIn("evil", 9)]); exceeds != "" {
			refused++
			m.book(pod, 1)
		}
	}
	if bytes, n := m.bytes.Load(), m.refusals.Load(); bytes > 1000 || n != int64(refused) || refused == 0 || refused > 4 {
		t.Errorf("%d bytes, %d refused, %d are noted", bytes, refused, n)
	}
	if exceeds, _ := m.admit(podIn("good", 1), 150); exceeds != "" {
		t.Error("a namespace within its share")
	}
}

// What was refused is tried again when memory is free.
func TestMemoryRetry(t *testing.T) {
	m := newMemory(Budget{100, 100})
	a, b := podIn("a", 0), podIn("a", 1)
	if exceeds, _ := m.admit(a, 90); exceeds != "" {
		t.Fatal("refused")
	}
	if exceeds, _ := m.admit(b, 90); exceeds == "" {
		t.Fatal("admitted")
	}
	if again := m.book(b, 1); len(again) > 0 {
		t.Errorf("again %v, but nothing is free", again)
	}
	if again := m.forget(a); len(again) != 1 || again[0] != b {
		t.Errorf("again %v", again)
	}
	if exceeds, _ := m.admit(b, 90); exceeds != "" {
		t.Error("there is room")
	}
	if again := m.forget(b); len(again) > 0 {
		t.Errorf("again %v", again)
	}
	if bytes, refused := m.bytes.Load(), m.refusals.Load(); bytes != 0 || refused != 0 || len(m.pods)+len(m.namespaces) > 0 {
		t.Errorf("%d bytes and %d refused are left, %v, %v", bytes, refused, m.pods, m.namespaces)
	}
}

// A pod whose table does not fit is isolated, and gets its table when another pod is gone.
func TestMemoryBudget(t *testing.T) {
	s := newStage(t)
	acknowledged := &acknowledgedRules{rules: map[cache.PodID]cache.Rules{}}
	s.agent = New(s, s.openTable, Budget{chains(5).Memory(), chains(5).Memory()}, acknowledged)
	s.rules = someRules(t)
	s.set("first", "s1", chains(4))
	s.run()
	s.settled()
	s.set("second", "s2", chains(4))
	s.settled()
	if s.tables["/s1"] != 4 || s.tables["/s2"] != 1 {
		t.Errorf("tables %v", s.tables)
	}
	none := cache.Rules{}
	if acknowledged.of("first") == none || acknowledged.of("second") != none {
		t.Error("the pod that does not fit counts as one with its rules, or the other does not")
	}
	if stats := s.agent.Stats(); stats.Refused != 1 || stats.Memory != int64(chains(5).Memory()) {
		t.Errorf("%+v", stats)
	}
	s.remove("first")
	s.until("the second pod has its table", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.tables["/s2"] == 4 })
	s.until("the second pod has its rules", func() bool { return acknowledged.of("second") != none })
}

// acknowledgedRules notes the rules in the tables that the kernel acknowledged last.
type acknowledgedRules struct {
	Unobserved
	mu    sync.Mutex
	rules map[cache.PodID]cache.Rules
}

func (a *acknowledgedRules) Applied(t cache.Target) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rules[t.Pod] = t.Rules
}

func (a *acknowledgedRules) of(name string) cache.Rules {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rules[id(name)]
}

// someRules returns rules that are not the zero value.
func someRules(t *testing.T) cache.Rules {
	t.Helper()
	c := cache.New(cache.Options{Node: "n"})
	c.UpsertPod(cache.Pod{Key: cache.Key{Namespace: "ns", Name: "p"}, UID: "p", Node: "n", Requested: "net"})
	target, ok := c.Plan(cache.PodID{Key: cache.Key{Namespace: "ns", Name: "p"}, UID: "p"})
	if !ok {
		t.Fatal("no target")
	}
	return target.Rules
}

// The sum of all tables never exceeds the budget and the reserve, while the larger namespaces have not given memory back.
func TestMemoryReserve(t *testing.T) {
	const table = MemoryReserve / 4
	m := newMemory(Budget{10 * table, 3 * table})
	for i := range 10 {
		m.admit(podIn("evil", i), table)
	}
	var waiting []cache.PodID
	for i := range 5 {
		exceeds, again := m.admit(podIn("good", i), table)
		if exceeds != "" {
			waiting = append(waiting, podIn("good", i))
		}
		if len(again) != 10 {
			t.Errorf("to be looked at again: %v", again)
		}
		if n := m.bytes.Load(); n > 10*table+MemoryReserve {
			t.Errorf("%d bytes", n)
		}
	}
	if len(waiting) != 1 {
		t.Errorf("waiting: %v", waiting)
	}
	var again []cache.PodID
	for i := range 5 {
		again = append(again, m.book(podIn("evil", i), 0)...)
	}
	if !slices.Contains(again, waiting[0]) {
		t.Errorf("memory is free, again %v", again)
	}
	if exceeds, _ := m.admit(podIn("good", 9), 4*table); exceeds != podMemory {
		t.Errorf("a table that is too large exceeds %q", exceeds)
	}
}
