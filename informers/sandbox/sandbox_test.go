package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
)

// sink is a Sink that remembers.
type sink struct {
	mu   sync.Mutex
	held map[types.UID]cache.Sandbox
}

// SetSandbox implements Sink.
func (s *sink) SetSandbox(uid types.UID, sandbox cache.Sandbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[uid] = sandbox
}

// DeleteSandbox implements Sink.
func (s *sink) DeleteSandbox(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, uid)
}

func (s *sink) sandbox(uid types.UID) cache.Sandbox {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[uid]
}

// state is the sandbox of each pod, sorted.
func (s *sink) state() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for uid, sandbox := range s.held {
		lines = append(lines, fmt.Sprintf("%s = %s", uid, sandbox.ID))
	}
	slices.Sort(lines)
	return lines
}

// becomes waits for a state.
func (s *sink) becomes(t *testing.T, want ...string) {
	t.Helper()
	await.That(t, fmt.Sprintf("the sink holds %q", want), func() bool { return slices.Equal(s.state(), want) })
}

// node is a host's root directory with a runtime, and the Sandboxes that follow the runtime.
type node struct {
	t         *testing.T
	root      string
	runtime   *cluster.Runtime
	sink      *sink
	log       *await.Log
	sandboxes *Sandboxes
}

// newNode follows a runtime that is not started yet.
func newNode(t *testing.T, socket string) *node {
	t.Helper()
	root, err := os.MkdirTemp("", "node") // a socket's path may not be as long as t.TempDir's
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"run/netns", filepath.Dir(socket)} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n := &node{
		t: t, root: root, sink: &sink{held: map[types.UID]cache.Sandbox{}}, log: &await.Log{},
		runtime: cluster.NewRuntime(filepath.Join(root, socket)),
	}
	n.sandboxes = New(Config{HostPrefix: root, Sink: n.sink, Notify: func() {}})
	stop := run(n.log, n.sandboxes.Run)
	t.Cleanup(func() {
		stop()
		n.runtime.Stop()
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	return n
}

// run runs a function in the background. stop ends its context and waits.
func run(log *await.Log, f func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(logr.NewContext(context.Background(), log.Logger()))
	done := make(chan struct{})
	go func() { f(ctx); close(done) }()
	return func() { cancel(); <-done }
}

func (n *node) start() {
	n.t.Helper()
	if err := n.runtime.Start(); err != nil {
		n.t.Fatal(err)
	}
}

// polls waits until the runtime has listed its sandboxes so many times more.
func (n *node) polls(count int) {
	n.t.Helper()
	before, _ := n.runtime.Calls()
	await.That(n.t, "polls", func() bool {
		n.sandboxes.Poke("")
		lists, _ := n.runtime.Calls()
		return lists >= before+count
	})
}

// sandbox is a sandbox of the pod with this UID, with a network namespace that can be opened.
func (n *node) sandbox(id, uid string, created int64) cluster.Sandbox {
	n.t.Helper()
	path := filepath.Join(n.root, "run/netns", id)
	if err := os.Symlink("/proc/self/ns/net", path); err != nil && !os.IsExist(err) {
		n.t.Fatal(err)
	}
	return cluster.Sandbox{
		ID: id, UID: uid, Namespace: "ns", Name: uid, CreatedAt: created, Info: cluster.InfoOf("/var/run/netns/" + id),
	}
}

const containerd = "run/containerd/containerd.sock"

func TestSandboxes(t *testing.T) {
	t.Parallel()
	n := newNode(t, containerd)
	n.runtime.Set(n.sandbox("s1", "a", 1), n.sandbox("s2", "b", 1))
	n.start()
	await.That(t, "in sync", n.sandboxes.HasSynced)
	n.sink.becomes(t, "a = s1", "b = s2")
	want := cache.Sandbox{ID: "s1", Pod: cache.Key{Namespace: "ns", Name: "a"}, NetNS: filepath.Join(n.root, "run/netns/s1")}
	if got := n.sink.sandbox("a"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	old := n.sandbox("s1", "a", 1)
	old.NotReady = true
	n.runtime.Set(old, n.sandbox("s3", "a", 2))
	n.sink.becomes(t, "a = s3")
	n.runtime.Set(n.sandbox("s5", "a", 3), n.sandbox("s4", "a", 2))
	n.sink.becomes(t, "a = s5")
	n.runtime.Set()
	n.sink.becomes(t)
}

func TestSandboxesOfCRIO(t *testing.T) {
	n := newNode(t, "run/crio/crio.sock")
	n.runtime.Set(n.sandbox("s1", "a", 1))
	n.start()
	n.sink.becomes(t, "a = s1")
}

// A sandbox on the host's network never reaches the sink, whatever its verbose info contains.
func TestHostNetworkSandbox(t *testing.T) {
	n := newNode(t, containerd)
	host := n.sandbox("s1", "a", 1)
	host.HostNetwork = true
	n.runtime.Set(host, n.sandbox("s2", "b", 1))
	n.start()
	await.That(t, "in sync", n.sandboxes.HasSynced)
	n.sink.becomes(t, "b = s2")
	_, before := n.runtime.Calls()
	n.polls(3)
	if _, after := n.runtime.Calls(); after != before {
		t.Errorf("%d statuses asked for of sandboxes that are known", after-before)
	}
}

// A sandbox that cannot be resolved is tried again, is logged once, and delays no other sandbox.
func TestUnresolvedSandbox(t *testing.T) {
	t.Parallel()
	n := newNode(t, containerd)
	broken := n.sandbox("s1", "a", 1)
	broken.Err = status.Error(codes.Internal, "shim is stuck")
	unreadable := n.sandbox("s2", "b", 1)
	unreadable.Info = map[string]string{"info": "{"}
	n.runtime.Set(broken, unreadable, n.sandbox("s3", "c", 1))
	n.start()
	n.sink.becomes(t, "c = s3")
	await.That(t, "more tries", func() bool { _, n := n.runtime.Calls(); return n >= 7 })
	if lines := n.log.With("shim is stuck"); len(lines) != 1 {
		t.Errorf("logged %d times: %q", len(lines), lines)
	}
	n.runtime.Set(n.sandbox("s1", "a", 1), n.sandbox("s2", "b", 1), n.sandbox("s3", "c", 1))
	n.sink.becomes(t, "a = s1", "b = s2", "c = s3")
}

// A new sandbox with an unknown network namespace does not replace the old sandbox of the pod.
func TestUnresolvedSuccessor(t *testing.T) {
	t.Parallel()
	n := newNode(t, containerd)
	n.runtime.Set(n.sandbox("s1", "a", 1))
	n.start()
	n.sink.becomes(t, "a = s1")
	broken := n.sandbox("s2", "a", 2)
	broken.Err = errors.New("not yet")
	n.runtime.Set(n.sandbox("s1", "a", 1), broken)
	await.That(t, "the new one is asked for", func() bool { _, n := n.runtime.Calls(); return n >= 2 })
	n.sink.becomes(t, "a = s1")
	n.runtime.Set(n.sandbox("s1", "a", 1), n.sandbox("s2", "a", 2))
	n.sink.becomes(t, "a = s2")
}

// A runtime that is away, or answers with errors, changes nothing, is logged once, and is found again.
func TestRuntimeOutage(t *testing.T) {
	t.Parallel()
	n := newNode(t, containerd)
	await.That(t, "the missing socket is logged", func() bool { return len(n.log.With("no container runtime socket")) == 1 })
	if n.sandboxes.HasSynced() {
		t.Error("in sync without a runtime")
	}
	n.runtime.Set(n.sandbox("s1", "a", 1))
	n.start()
	n.sink.becomes(t, "a = s1")
	await.That(t, "the socket's return is logged", func() bool { return len(n.log.With("works again")) == 1 })

	n.runtime.FailLists(status.Error(codes.Unknown, "database is locked"))
	n.runtime.Set()
	await.That(t, "the failure is logged", func() bool { return len(n.log.With("database is locked")) == 1 })
	n.sink.becomes(t, "a = s1")
	n.runtime.FailLists(nil)
	n.sink.becomes(t)

	n.runtime.Stop()
	await.That(t, "the restart is logged", func() bool { return len(n.log.With("container runtime failed")) == 3 })
	n.runtime.Set(n.sandbox("s2", "a", 1))
	n.start()
	n.sink.becomes(t, "a = s2")
}

func TestEndpoint(t *testing.T) {
	n := newNode(t, containerd)
	n.runtime.Set(n.sandbox("s1", "a", 1))
	n.start()
	for name, tc := range map[string]struct {
		endpoint, prefix string
		want             bool
	}{
		"a path below the prefix": {"/" + containerd, n.root, true},
		"a URL below the prefix":  {"unix:///" + containerd, n.root, true},
		"mounted by its own name": {"unix://" + filepath.Join(n.root, containerd), n.root, true},
		"no unix socket":          {"tcp://127.0.0.1:1", n.root, false},
		"another path":            {"/run/other.sock", n.root, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := &await.Log{}
			sandboxes := New(Config{Endpoint: tc.endpoint, HostPrefix: tc.prefix, Sink: &sink{held: map[types.UID]cache.Sandbox{}}, Notify: func() {}})
			defer run(log, sandboxes.Run)()
			await.That(t, "an answer", func() bool { return sandboxes.HasSynced() || len(log.With("failed")) > 0 })
			if sandboxes.HasSynced() != tc.want {
				t.Errorf("in sync: %v; log %q", sandboxes.HasSynced(), log.With(""))
			}
		})
	}
}
