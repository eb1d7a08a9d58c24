package sandbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
)

// fakeRuntime is the client of a runtime for a bubble of package synctest, where no wait takes time.
type fakeRuntime struct {
	internalapi.RuntimeService
	answer func(ctx context.Context, id string) error // nil: where the sandbox is

	mu        sync.Mutex
	sandboxes []*runtimeapi.PodSandbox
	lists     int
	asked     map[string][]time.Time
}

// set makes these all sandboxes, the oldest first.
func (r *fakeRuntime) set(ids ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sandboxes = nil
	for i, id := range ids {
		r.sandboxes = append(r.sandboxes, &runtimeapi.PodSandbox{
			Id: id, State: runtimeapi.PodSandboxState_SANDBOX_READY, CreatedAt: int64(i),
			Metadata: &runtimeapi.PodSandboxMetadata{Namespace: "ns", Name: id, Uid: "pod-" + id},
		})
	}
}

// ListPodSandbox implements internalapi.PodSandboxManager.
func (r *fakeRuntime) ListPodSandbox(context.Context, *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lists++
	return slices.Clone(r.sandboxes), nil
}

// PodSandboxStatus implements internalapi.PodSandboxManager.
func (r *fakeRuntime) PodSandboxStatus(ctx context.Context, id string, _ bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	r.mu.Lock()
	r.asked[id] = append(r.asked[id], time.Now())
	r.mu.Unlock()
	if err := r.answer(ctx, id); err != nil {
		return nil, err
	}
	return &runtimeapi.PodSandboxStatusResponse{Info: cluster.InfoOf("/proc/self/ns/net")}, nil
}

// Close implements internalapi.RuntimeService.
func (*fakeRuntime) Close(context.Context) error { return nil }

// tries returns when the status of a sandbox was asked for.
func (r *fakeRuntime) tries(id string) []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked[id])
}

func (r *fakeRuntime) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lists
}

// followed is a fakeRuntime, and the Sandboxes that follow it until the end of the test.
type followed struct {
	*Sandboxes
	runtime *fakeRuntime
	sink    *sink
	log     await.Log
}

func follow(t *testing.T, answer func(ctx context.Context, id string) error, ids ...string) *followed {
	f := &followed{
		runtime: &fakeRuntime{answer: answer, asked: map[string][]time.Time{}},
		sink:    &sink{held: map[types.UID]cache.Sandbox{}},
	}
	f.runtime.set(ids...)
	f.Sandboxes = New(Config{Sink: f.sink, Notify: func() {}})
	f.client = f.runtime
	t.Cleanup(run(&f.log, f.Run))
	return f
}

// holds compares the sandboxes in the sink.
func (f *followed) holds(t *testing.T, ids ...string) {
	t.Helper()
	synctest.Wait()
	var want []string
	for _, id := range ids {
		want = append(want, fmt.Sprintf("pod-%s = %s", id, id))
	}
	if got := f.sink.state(); !slices.Equal(got, want) {
		t.Errorf("the sink holds %q, want %q", got, want)
	}
}

// hangs answers about the sandboxes that begin with "hung" only when the client gives up.
func hangs(ctx context.Context, id string) error {
	if id[0] != 'h' {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// A runtime that hangs on a sandbox delays neither the other sandboxes nor the start of the agent.
func TestHungSandbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, hangs, "a", "hung")
		time.Sleep(time.Second)
		f.holds(t, "a")
		if f.HasSynced() {
			t.Error("in sync before the runtime had a chance to answer")
		}
		time.Sleep(3 * time.Second)
		if !f.HasSynced() {
			t.Error("a hung sandbox keeps the agent waiting")
		}
		f.runtime.set("a", "b", "hung")
		time.Sleep(2 * time.Second)
		f.holds(t, "a", "b")
	})
}

// Many hung sandboxes do not delay the others, whether the others come with them or later.
func TestManyHungSandboxes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ids []string
		for i := range 200 {
			ids = append(ids, fmt.Sprint("hung", i))
		}
		ids = append(ids, "a")
		f := follow(t, hangs, ids...)
		time.Sleep(2 * time.Second)
		f.holds(t, "a")
		for i := range 10 {
			id := fmt.Sprint("b", i)
			f.runtime.set(append(ids, id)...)
			time.Sleep(2 * time.Second)
			f.holds(t, "a", id)
		}
	})
}

// A sandbox that keeps failing is asked about less and less often, is logged once, and is known once the runtime answers.
func TestFailingSandbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var works atomic.Bool
		f := follow(t, func(context.Context, string) error {
			if works.Load() {
				return nil
			}
			return errors.New("shim is stuck")
		}, "a")
		time.Sleep(time.Hour)
		tries := f.runtime.tries("a")
		if n := len(tries); n < 100 || n > 140 {
			t.Errorf("asked %d times in an hour", n)
		}
		for i := 2; i < 10; i++ {
			if before, now := tries[i-1].Sub(tries[i-2]), tries[i].Sub(tries[i-1]); now < before {
				t.Errorf("try %d after %s, the one before after %s", i, now, before)
			}
		}
		if lines := f.log.With("shim is stuck"); len(lines) != 1 {
			t.Errorf("logged %q", lines)
		}
		f.holds(t)
		works.Store(true)
		time.Sleep(32 * time.Second)
		f.holds(t, "a")
	})
}

// The agent starts when each sandbox is known or has failed, and not before the runtime has answered.
func TestSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, func(_ context.Context, id string) error {
			time.Sleep(time.Second)
			if id == "b" {
				return errors.New("gone")
			}
			return nil
		}, "a", "b")
		time.Sleep(900 * time.Millisecond)
		if f.HasSynced() {
			t.Error("in sync without an answer")
		}
		time.Sleep(500 * time.Millisecond)
		if !f.HasSynced() {
			t.Error("all have answered")
		}
		f.holds(t, "a")
	})
}

// A poke makes a sandbox known long before the next regular poll, also when the runtime has the sandbox a moment later.
// Many pokes do not make many polls.
func TestPoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, hangs)
		for i := range 5 {
			time.Sleep(2700 * time.Millisecond)
			id := fmt.Sprint("s", i)
			f.Poke(types.UID("pod-" + id))
			time.Sleep(150 * time.Millisecond)
			f.runtime.set(id)
			time.Sleep(400 * time.Millisecond)
			f.holds(t, id)
			f.runtime.set()
			time.Sleep(2 * time.Second)
			f.holds(t)
		}
		before := f.runtime.count()
		time.Sleep(time.Minute)
		if n := f.runtime.count() - before; n > 65 {
			t.Errorf("%d lists in a minute without pokes", n)
		}
		before = f.runtime.count()
		for range 10_000 {
			f.Poke("pod-x")
			time.Sleep(time.Millisecond)
		}
		if n := f.runtime.count() - before; n > 210 {
			t.Errorf("%d lists in 10 seconds of pokes", n)
		}
	})
}

func (f *followed) started(id string)    { f.Started(types.UID("pod-"+id), sandboxOf(id)) }
func (f *followed) seen(pod, id string)  { f.Seen(types.UID("pod-"+pod), sandboxOf(id)) }
func (f *followed) ended(pod, id string) { f.Ended(types.UID("pod-"+pod), id) }

func sandboxOf(id string) cache.Sandbox {
	return cache.Sandbox{ID: id, Pod: cache.Key{Namespace: "ns", Name: id}, NetNS: "/proc/self/ns/net"}
}

// An NRI event counts against the lists for half a minute: a runtime lists a new sandbox late, and a list may be older than
// the event.
func TestSandboxEvents(t *testing.T) {
	known, both := []string{"a"}, []string{"a", "n"}
	for name, tc := range map[string]struct {
		do          func(f *followed)
		soon, later []string // in the sink
	}{
		"started, not listed":    {func(f *followed) { f.started("n") }, both, known},
		"started and listed":     {func(f *followed) { f.started("n"); f.runtime.set("a", "n") }, both, both},
		"seen, not listed":       {func(f *followed) { f.seen("n", "n") }, both, known},
		"seen, another is known": {func(f *followed) { f.seen("a", "n") }, known, known},
		"ended, still listed":    {func(f *followed) { f.ended("a", "a") }, nil, known},
		"another ended":          {func(f *followed) { f.ended("a", "n") }, known, known},
		"ended, then started":    {func(f *followed) { f.ended("n", "n"); f.started("n") }, known, known},
		"ended, then seen":       {func(f *followed) { f.ended("n", "n"); f.seen("n", "n") }, known, known},
		"started, then ended":    {func(f *followed) { f.started("n"); f.ended("n", "n") }, known, known},
		"started, its status hangs": {
			func(f *followed) { f.started("hung"); f.runtime.set("a", "hung") }, []string{"a", "hung"}, []string{"a", "hung"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := follow(t, hangs, "a")
				time.Sleep(time.Second)
				tc.do(f)
				for range 20 {
					f.holds(t, tc.soon...)
					time.Sleep(time.Second)
				}
				time.Sleep(15 * time.Second)
				f.holds(t, tc.later...)
			})
		})
	}
}
