package reconciler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// stage is a reconciler between targets and tables that a test plays.
type stage struct {
	t     *testing.T
	agent *Reconciler

	mu      sync.Mutex
	targets map[cache.PodID]cache.Target
	dirty   []cache.PodID
	calls   []string            // "open web /ns", "apply web 2", "close web", in order
	fail    map[string]error    // by the call that fails
	open    map[string]int      // tables open, by pod
	tables  map[string]int      // chains in the kernel, by network namespace
	busy    map[string]chan any // applies of a pod that wait until the channel is closed
	bridged map[string]bool     // pods with a bridge
	owned   bool                // no other process can change the tables
	asked   int                 // questions whether a table has changed
	applied map[string][]engine.Tables
	rules   cache.Rules    // of all targets
	running map[string]int // applies under way, by pod
	most    int            // applies under way at the same time
}

func newStage(t *testing.T) *stage {
	s := &stage{
		t: t, targets: map[cache.PodID]cache.Target{}, fail: map[string]error{}, open: map[string]int{},
		tables: map[string]int{}, busy: map[string]chan any{}, bridged: map[string]bool{}, applied: map[string][]engine.Tables{}, running: map[string]int{},
	}
	s.agent = New(s, s.openTable, Budget{1 << 30, 1 << 30}, nil)
	return s
}

func (s *stage) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.agent.Run(ctx); close(done) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	s.t.Cleanup(stop)
	return stop
}

func id(name string) cache.PodID {
	return cache.PodID{Key: cache.Key{Namespace: "ns", Name: name}, UID: types.UID(name)}
}

// chains is a ruleset of that many chains.
func chains(n int) engine.Ruleset {
	var all []*engine.Chain
	for i := range n {
		all = append(all, &engine.Chain{Name: fmt.Sprintf("chain%d", i)})
	}
	return engine.NewRuleset(nil, all)
}

// set makes a pod's target, and tells of it.
func (s *stage) set(name, sandbox string, rs engine.Ruleset) {
	s.mu.Lock()
	s.targets[id(name)] = cache.Target{
		Pod: id(name), Sandbox: cache.Sandbox{ID: sandbox, NetNS: "/" + sandbox}, Tables: engine.Tables{engine.Inet: rs}, Rules: s.rules,
	}
	s.dirty = append(s.dirty, id(name))
	s.mu.Unlock()
	s.agent.Notify()
}

func (s *stage) remove(name string) {
	s.mu.Lock()
	delete(s.targets, id(name))
	s.dirty = append(s.dirty, id(name))
	s.mu.Unlock()
	s.agent.Notify()
}

func (s *stage) failing(call string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail[call] = err
}

func (s *stage) settled() {
	s.t.Helper()
	s.until("settled", s.agent.Settled)
}

func (s *stage) until(what string, condition func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("never: %s; calls %q", what, s.taken())
		}
	}
}

// taken returns the calls since the last time, without audits.
func (s *stage) taken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

func (s *stage) expect(want ...string) {
	s.t.Helper()
	s.settled()
	if got := s.taken(); !slices.Equal(got, want) {
		s.t.Errorf("got %q, want %q", got, want)
	}
}

func (s *stage) TakeDirty() []cache.PodID {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := s.dirty
	s.dirty = nil
	return keys
}

func (s *stage) IsSelected(pod cache.PodID) (selected, known bool) {
	t, known := s.Plan(pod)
	return !t.Tables.IsEmpty(), known
}

func (s *stage) Plan(pod cache.PodID) (cache.Target, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.targets[pod]
	return t, ok
}

// SetBridged adds a table of family bridge to the target of a pod.
func (s *stage) SetBridged(pod cache.PodID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	target := s.targets[pod]
	target.HasBridge, target.Tables[engine.Bridge] = true, chains(1)
	s.targets[pod] = target
	s.dirty = append(s.dirty, pod)
}

// Closed is a table of a chain.
func (s *stage) Closed(cache.PodID, string) engine.Tables {
	return engine.Tables{engine.Inet: chains(1)}
}

type stageTable struct {
	stage      *stage
	pod, netns string
}

func (s *stage) openTable(pod, netns string) (Table, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, name, _ := cut(pod)
	s.calls = append(s.calls, "open "+name+" "+netns)
	if err := s.fail["open "+name]; err != nil {
		return nil, err
	}
	s.open[name]++
	return &stageTable{s, name, netns}, nil
}

func cut(pod string) (namespace, name string, ok bool) {
	for i := range pod {
		if pod[i] == '/' {
			return pod[:i], pod[i+1:], true
		}
	}
	return "", pod, false
}

func (t *stageTable) Apply(_ context.Context, want engine.Tables) error {
	s := t.stage
	s.mu.Lock()
	s.applied[t.pod] = append(s.applied[t.pod], want)
	s.calls = append(s.calls, fmt.Sprintf("apply %s %d", t.pod, len(want[engine.Inet].Chains)))
	busy, err := s.busy[t.pod], s.fail["apply "+t.pod]
	s.running[t.pod]++
	if s.running[t.pod] > 1 {
		s.t.Errorf("two batches for %s at the same time", t.pod)
	}
	total := 0
	for _, n := range s.running {
		total += n
	}
	s.most = max(s.most, total)
	s.mu.Unlock()
	if busy != nil {
		<-busy
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[t.pod]--
	if err == nil {
		s.tables[t.netns] = len(want[engine.Inet].Chains)
	}
	return err
}

func (t *stageTable) IsExposed() bool {
	t.stage.mu.Lock()
	defer t.stage.mu.Unlock()
	return !t.stage.owned
}

func (t *stageTable) Changed(context.Context) (bool, error) {
	t.stage.mu.Lock()
	defer t.stage.mu.Unlock()
	t.stage.asked++
	return false, t.stage.fail["check "+t.pod]
}

func (t *stageTable) Check(context.Context) (engine.Finding, error) {
	t.stage.mu.Lock()
	defer t.stage.mu.Unlock()
	return engine.AsApplied, t.stage.fail["check "+t.pod]
}

func (t *stageTable) SeedFailure() error { return nil }

func (t *stageTable) HasBridgePort(...string) (bool, error) {
	t.stage.mu.Lock()
	defer t.stage.mu.Unlock()
	return t.stage.bridged[t.pod], nil
}

func (t *stageTable) Close() error {
	t.stage.mu.Lock()
	defer t.stage.mu.Unlock()
	t.stage.calls = append(t.stage.calls, "close "+t.pod)
	t.stage.open[t.pod]--
	return nil
}

func TestPodLife(t *testing.T) {
	s := newStage(t)
	s.run()
	s.set("web", "", chains(1))
	s.expect() // no sandbox yet
	s.set("web", "s1", chains(1))
	s.expect("open web /s1", "apply web 1")
	s.set("web", "s1", chains(2))
	s.expect("apply web 2")
	s.set("web", "s2", chains(2))
	s.expect("close web", "open web /s2", "apply web 2")
	s.set("web", "s2", engine.Ruleset{})
	s.expect("apply web 0", "close web") // no descriptor for a pod without policies
	s.set("web", "s2", engine.Ruleset{})
	s.expect()
	s.set("web", "s2", chains(3))
	s.expect("open web /s2", "apply web 3")
	s.set("web", "", chains(3))
	s.expect("close web")
	s.set("web", "s3", chains(3))
	s.expect("open web /s3", "apply web 3")
	s.remove("web")
	s.expect("close web")
	if s.tables["/s3"] != 3 {
		t.Error("the table went with the pod's target")
	}
	if len(s.agent.pods) != 0 || len(s.agent.audited) != 0 {
		t.Errorf("left over: %v, %v", s.agent.pods, s.agent.audited)
	}
}

// A stale table of an earlier run is removed from each pod once, also when no policy ever selects it.
func TestStaleTableOfUnselectedPod(t *testing.T) {
	s := newStage(t)
	s.run()
	s.set("web", "s1", engine.Ruleset{})
	s.expect("open web /s1", "apply web 0", "close web")
	s.set("web", "s2", engine.Ruleset{})
	s.expect("open web /s2", "apply web 0", "close web")
}

// Changes before Run wait for it, and many changes of a pod are one batch.
func TestNothingBeforeRun(t *testing.T) {
	s := newStage(t)
	for i := range 10 {
		s.set("web", "s1", chains(i))
	}
	time.Sleep(20 * time.Millisecond)
	if got := s.taken(); len(got) > 0 {
		t.Fatalf("%q before Run", got)
	}
	s.run()
	s.expect("open web /s1", "apply web 9")
}

// While one pod's batch is under way, others go on, and its own changes become a further batch.
func TestOnePodAtATime(t *testing.T) {
	s := newStage(t)
	hold := make(chan any)
	s.busy["slow"] = hold
	s.run()
	s.set("slow", "s1", chains(1))
	s.until("the slow batch is under way", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.running["slow"] == 1
	})
	s.set("quick", "s2", chains(1))
	s.until("the quick pod is done", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.tables["/s2"] == 1
	})
	for i := range 5 {
		s.set("slow", "s1", chains(2+i))
	}
	if s.agent.Settled() {
		t.Error("settled with a batch under way")
	}
	close(hold)
	s.expect("open slow /s1", "apply slow 1", "open quick /s2", "apply quick 1", "apply slow 6")
}

// A pod that fails is tried again, with growing pauses, and the others do not notice.
func TestFailures(t *testing.T) {
	for name, call := range map[string]string{"open": "open bad", "apply": "apply bad"} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.run()
			s.failing(call, &engine.ApplyError{Pod: "ns/bad", Op: name, Err: os.ErrNotExist})
			s.set("bad", "s1", chains(1))
			s.set("good", "s2", chains(1))
			start := time.Now()
			tries := 0
			// Each try is two: the second on another socket.
			s.until("four tries", func() bool {
				for _, c := range s.taken() {
					if c == "open bad /s1" && name == "open" || c == "apply bad 1" {
						tries++
					}
				}
				return tries >= 8
			})
			if waited := time.Since(start); waited < 7*firstRetry {
				t.Errorf("four tries in %s", waited)
			}
			if s.agent.Settled() {
				t.Error("settled with a pod that failed")
			}
			if s.tables["/s2"] != 1 {
				t.Error("the good pod waited for the bad one")
			}
			s.failing(call, nil)
			s.settled()
			if s.tables["/s1"] != 1 {
				t.Error("the bad pod was not tried again")
			}
		})
	}
}

// A table that cannot be looked at is applied again, on another socket if need be.
func TestFailedAudit(t *testing.T) {
	s := newStage(t)
	s.run()
	s.set("web", "s1", chains(1))
	s.settled()
	s.taken()
	s.failing("check web", os.ErrClosed)
	s.failing("apply web", os.ErrClosed)
	s.until("another socket", func() bool { return slices.Contains(s.taken(), "open web /s1") })
	s.failing("check web", nil)
	s.failing("apply web", nil)
	s.until("applied", func() bool { return slices.Contains(s.taken(), "apply web 1") })
	s.settled()
}

// The end leaves every table, lets go of every descriptor, and waits for the batch under way.
func TestStop(t *testing.T) {
	s := newStage(t)
	stop := s.run()
	s.set("web", "s1", chains(1))
	s.set("db", "s2", chains(2))
	s.settled()
	hold := make(chan any)
	s.mu.Lock()
	s.busy["web"] = hold
	s.mu.Unlock()
	s.set("web", "s1", chains(3))
	s.until("the batch is under way", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.running["web"] == 1
	})
	time.AfterFunc(20*time.Millisecond, func() { close(hold) })
	stop()
	if s.tables["/s1"] != 3 || s.tables["/s2"] != 2 {
		t.Errorf("tables after the end: %v", s.tables)
	}
	for pod, n := range s.open {
		if n != 0 {
			t.Errorf("%d tables of %s open", n, pod)
		}
	}
	s.set("web", "s1", chains(4))
	if got := s.taken(); slices.Contains(got, "apply web 4") {
		t.Error("a batch after the end")
	}
}

// The many pods of a node are worked on by all processors.
func TestManyPods(t *testing.T) {
	s := newStage(t)
	s.run()
	boom := errors.New("boom")
	s.failing("apply p13", boom)
	for i := range 200 {
		s.set(fmt.Sprintf("p%d", i), fmt.Sprintf("s%d", i), chains(1))
	}
	s.until("199 pods are done", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.tables) == 199
	})
	s.failing("apply p13", nil)
	s.settled()
	if len(s.tables) != 200 {
		t.Errorf("%d tables", len(s.tables))
	}
}
