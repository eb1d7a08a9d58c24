package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
)

// node is a host's root directory with a runtime, and the source that follows it.
type node struct {
	t       *testing.T
	root    string
	runtime *cluster.Runtime
	sink    *recorder
	log     *logLines
	source  *informers.Sandboxes
	stop    func()
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
		t: t, root: root, sink: newRecorder(), log: &logLines{},
		runtime: cluster.NewRuntime(filepath.Join(root, socket)),
	}
	n.source = informers.NewSandboxes(informers.SandboxConfig{HostPrefix: root, Sink: n.sink, Notify: n.sink.Notify})
	ctx, cancel := context.WithCancel(logr.NewContext(context.Background(), n.log.logger()))
	done := make(chan struct{})
	go func() { n.source.Run(ctx); close(done) }()
	n.stop = func() { cancel(); <-done }
	t.Cleanup(func() {
		n.stop()
		n.runtime.Stop()
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	return n
}

func (n *node) start() {
	n.t.Helper()
	if err := n.runtime.Start(); err != nil {
		n.t.Fatal(err)
	}
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
	n := newNode(t, containerd)
	n.runtime.Set(n.sandbox("s1", "a", 1), n.sandbox("s2", "b", 1))
	n.start()
	eventually(t, "in sync", n.source.HasSynced)
	n.sink.becomes(t, "sandbox a = s1", "sandbox b = s2")
	if got, want := n.sink.sandbox["a"], (cache.Sandbox{ID: "s1", Pod: cache.Key{Namespace: "ns", Name: "a"}, NetNS: filepath.Join(n.root, "run/netns/s1")}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	old := n.sandbox("s1", "a", 1)
	old.NotReady = true
	n.runtime.Set(old, n.sandbox("s3", "a", 2))
	n.sink.becomes(t, "sandbox a = s3")
	n.runtime.Set(n.sandbox("s5", "a", 3), n.sandbox("s4", "a", 2))
	n.sink.becomes(t, "sandbox a = s5")
	n.runtime.Set()
	n.sink.becomes(t)
}

func TestSandboxesOfCRIO(t *testing.T) {
	n := newNode(t, "run/crio/crio.sock")
	n.runtime.Set(n.sandbox("s1", "a", 1))
	n.start()
	n.sink.becomes(t, "sandbox a = s1")
}

// The host's network namespace is never told to anybody, whatever else the runtime says of the sandbox.
func TestHostNetworkSandbox(t *testing.T) {
	n := newNode(t, containerd)
	host := n.sandbox("s1", "a", 1)
	host.HostNetwork = true
	n.runtime.Set(host, n.sandbox("s2", "b", 1))
	n.start()
	eventually(t, "in sync", n.source.HasSynced)
	n.sink.becomes(t, "sandbox b = s2")
	_, before := n.runtime.Calls()
	time.Sleep(1200 * time.Millisecond)
	if _, after := n.runtime.Calls(); after != before {
		t.Errorf("%d statuses asked for of sandboxes that are known", after-before)
	}
}

// One sandbox that cannot be resolved is tried again, is logged once, and holds up no other.
func TestUnresolvedSandbox(t *testing.T) {
	n := newNode(t, containerd)
	broken := n.sandbox("s1", "a", 1)
	broken.Err = status.Error(codes.Internal, "shim is stuck")
	unreadable := n.sandbox("s2", "b", 1)
	unreadable.Info = map[string]string{"info": "{"}
	n.runtime.Set(broken, unreadable, n.sandbox("s3", "c", 1))
	n.start()
	n.sink.becomes(t, "sandbox c = s3")
	eventually(t, "more tries", func() bool { _, n := n.runtime.Calls(); return n >= 7 })
	if lines := n.log.with("shim is stuck"); len(lines) != 1 {
		t.Errorf("logged %d times: %q", len(lines), lines)
	}
	n.runtime.Set(n.sandbox("s1", "a", 1), n.sandbox("s2", "b", 1), n.sandbox("s3", "c", 1))
	n.sink.becomes(t, "sandbox a = s1", "sandbox b = s2", "sandbox c = s3")
}

// A new sandbox whose namespace is not known yet does not take the old one away.
func TestUnresolvedSuccessor(t *testing.T) {
	n := newNode(t, containerd)
	n.runtime.Set(n.sandbox("s1", "a", 1))
	n.start()
	n.sink.becomes(t, "sandbox a = s1")
	broken := n.sandbox("s2", "a", 2)
	broken.Err = errors.New("not yet")
	n.runtime.Set(n.sandbox("s1", "a", 1), broken)
	eventually(t, "the new one is asked for", func() bool { _, n := n.runtime.Calls(); return n >= 2 })
	n.sink.becomes(t, "sandbox a = s1")
	n.runtime.Set(n.sandbox("s1", "a", 1), n.sandbox("s2", "a", 2))
	n.sink.becomes(t, "sandbox a = s2")
}

// A runtime that is away, or answers with errors, changes nothing, is logged once, and is found again.
func TestRuntimeOutage(t *testing.T) {
	n := newNode(t, containerd)
	eventually(t, "the missing socket is logged", func() bool { return len(n.log.with("no container runtime socket")) == 1 })
	if n.source.HasSynced() {
		t.Error("in sync without a runtime")
	}
	n.runtime.Set(n.sandbox("s1", "a", 1))
	n.start()
	n.sink.becomes(t, "sandbox a = s1")
	eventually(t, "the socket's return is logged", func() bool { return len(n.log.with("works again")) == 1 })

	n.runtime.FailLists(status.Error(codes.Unknown, "database is locked"))
	n.runtime.Set()
	eventually(t, "the failure is logged", func() bool { return len(n.log.with("database is locked")) == 1 })
	n.sink.becomes(t, "sandbox a = s1")
	n.runtime.FailLists(nil)
	n.sink.becomes(t)

	n.runtime.Stop()
	eventually(t, "the restart is logged", func() bool { return len(n.log.with("sandboxes failed")) == 3 })
	n.runtime.Set(n.sandbox("s2", "a", 1))
	n.start()
	n.sink.becomes(t, "sandbox a = s2")
}

// A poke makes a sandbox known long before the next regular poll, also when the runtime has it only a moment later.
func TestPoke(t *testing.T) {
	n := newNode(t, containerd)
	n.start()
	eventually(t, "in sync", n.source.HasSynced)
	var slowest time.Duration
	for i := range 5 {
		id := fmt.Sprintf("s%d", i)
		time.Sleep(300 * time.Millisecond)
		n.source.Poke("a")
		time.Sleep(20 * time.Millisecond)
		n.runtime.Set(n.sandbox(id, "a", int64(i)))
		start := time.Now()
		n.sink.becomes(t, "sandbox a = "+id)
		slowest = max(slowest, time.Since(start))
		n.runtime.Set()
		n.sink.becomes(t)
	}
	t.Logf("slowest: %s", slowest)
	if slowest > 700*time.Millisecond {
		t.Errorf("a sandbox of a poked pod took %s", slowest)
	}
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
			sink, log := newRecorder(), &logLines{}
			source := informers.NewSandboxes(informers.SandboxConfig{
				Endpoint: tc.endpoint, HostPrefix: tc.prefix, Sink: sink, Notify: sink.Notify,
			})
			ctx, cancel := context.WithCancel(logr.NewContext(context.Background(), log.logger()))
			done := make(chan struct{})
			go func() { source.Run(ctx); close(done) }()
			defer func() { cancel(); <-done }()
			eventually(t, "an answer", func() bool { return source.HasSynced() || len(log.with("failed")) > 0 })
			if source.HasSynced() != tc.want {
				t.Errorf("in sync: %v; log %q", source.HasSynced(), log.with(""))
			}
		})
	}
}
