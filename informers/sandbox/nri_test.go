package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
)

const nriSocket = "run/nri/nri.sock"

// The runtime waits longer for a plugin than real runtimes do, so that a busy machine causes no error.
func TestMain(m *testing.M) {
	adaptation.SetPluginRequestTimeout(6 * time.Second)
	os.Exit(m.Run())
}

// hooked is a node whose runtime has NRI, with the calls of the plugin.
type hooked struct {
	*node
	nri    *cluster.NRI
	config NRIConfig

	mu        sync.Mutex
	announced []cache.Pod
	enforce   func(try int) (bool, error)
	tries     int
	results   []HookResult
	states    []NRIState
	outages   []bool
	warnings  []string
}

func newHooked(t *testing.T) *hooked {
	t.Helper()
	h := &hooked{node: newNode(t, containerd), enforce: func(int) (bool, error) { return true, nil }}
	if err := os.MkdirAll(filepath.Join(h.root, filepath.Dir(nriSocket)), 0o755); err != nil {
		t.Fatal(err)
	}
	h.nri = cluster.NewNRI(filepath.Join(h.root, nriSocket))
	t.Cleanup(h.nri.Stop)
	limits := policy.DefaultLimits()
	h.config = NRIConfig{
		Socket: NRIAuto, HostPrefix: h.root, Node: "here", Sandboxes: h.sandboxes, Events: h, Observer: h,
		Settings: informers.Settings{Limits: &limits}, Announce: h.announce, Enforce: h.enforceNow,
	}
	return h
}

func (h *hooked) announce(p cache.Pod) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.announced = append(h.announced, p)
}

func (h *hooked) enforceNow(_ context.Context, pod cache.PodID) (bool, error) {
	h.mu.Lock()
	h.tries++
	try, enforce := h.tries, h.enforce
	h.mu.Unlock()
	if pod.Name != string(pod.UID) || pod.Namespace != "ns" {
		return false, fmt.Errorf("asked about pod %s", pod)
	}
	return enforce(try)
}

// Warn implements informers.EventSink.
func (h *hooked) Warn(about informers.Subject, reason policy.Reason, message string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.warnings = append(h.warnings, fmt.Sprintf("%s %s %s: %s", about.Kind, about, reason, message))
}

// NRIState implements NRIObserver. A state that repeats counts once.
func (h *hooked) NRIState(state NRIState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.states = slices.Compact(append(h.states, state))
}

// Hooked implements NRIObserver.
func (h *hooked) Hooked(result HookResult, _ time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.results = append(h.results, result)
}

// Outage implements NRIObserver.
func (h *hooked) Outage(_ string, down bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.outages = append(h.outages, down)
}

func (h *hooked) setEnforce(f func(try int) (bool, error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.enforce = f
}

// begin starts the plugin.
func (h *hooked) begin() (stop func()) {
	stop = run(h.log, func(ctx context.Context) { NewNRI(ctx, h.config).Run(ctx) })
	h.t.Cleanup(stop)
	return stop
}

func (h *hooked) connected() (stop func()) {
	h.t.Helper()
	if err := h.nri.Start(); err != nil {
		h.t.Fatal(err)
	}
	stop = h.begin()
	await.That(h.t, "a plugin", func() bool { return h.nri.Plugins() == 1 })
	return stop
}

// pod returns a pod whose network namespace can be opened.
func (h *hooked) pod(id, uid string) cluster.Pod {
	h.sandbox(id, uid, 1)
	return cluster.Pod{
		SandboxID: id, UID: uid, Namespace: "ns", Name: uid, NetNS: "/var/run/netns/" + id,
		Labels: map[string]string{"app": "web", "io.kubernetes.pod.name": uid, "io.cri-containerd.kind": "sandbox"},
		Annotations: map[string]string{
			"k8s.v1.cni.cncf.io/networks": "net", "kubernetes.io/config.source": "api", "kubernetes.io/config.seen": "now",
		},
	}
}

// got returns a copy of the calls so far.
func (h *hooked) got() *hooked {
	h.mu.Lock()
	defer h.mu.Unlock()
	return &hooked{
		announced: slices.Clone(h.announced), tries: h.tries, results: slices.Clone(h.results), states: slices.Clone(h.states),
		outages: slices.Clone(h.outages), warnings: slices.Clone(h.warnings),
	}
}

func TestNRI(t *testing.T) {
	h := newHooked(t)
	h.start()
	h.connected()
	pod := h.pod("s1", "a")
	if err := h.nri.Run(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	h.sink.becomes(t, "a = s1")
	want := cache.Pod{
		Key: cache.Key{Namespace: "ns", Name: "a"}, UID: "a", Node: "here",
		Labels: labelindex.NewSet(map[string]string{"app": "web"}), Requested: "net", StatusField: cache.StatusAnnotation,
	}
	if diff := cmp.Diff([]cache.Pod{want}, h.got().announced); diff != "" {
		t.Errorf("announced (-want +got):\n%s", diff)
	}
	h.setEnforce(func(int) (bool, error) { return false, nil })
	if err := h.nri.Run(t.Context(), h.pod("s2", "b")); err != nil {
		t.Fatal(err)
	}
	host := h.pod("s3", "c")
	host.NetNS = ""
	if err := h.nri.Run(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	file := h.pod("s4", "d")
	file.Annotations["kubernetes.io/config.source"] = "file"
	if err := h.nri.Run(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	got := h.got()
	if diff := cmp.Diff([]HookResult{HookEnforced, HookUnselected, HookHostNetwork, HookUnselected}, got.results); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	if len(got.outages)+len(got.warnings) > 0 || got.tries != 2 || len(got.announced) != 2 {
		t.Errorf("outages %v, warnings %q, asked %d times, announced %d", got.outages, got.warnings, got.tries, len(got.announced))
	}
	h.sink.becomes(t, "a = s1", "b = s2", "d = s4")
	h.nri.End(t.Context(), pod)
	h.sink.becomes(t, "b = s2", "d = s4")
}

// A pod whose rules cannot be enforced is refused, with a log line and an Event. After a short failure, the pod starts.
func TestNRIRefuses(t *testing.T) {
	t.Parallel()
	h := newHooked(t)
	h.start()
	h.connected()
	h.setEnforce(func(int) (bool, error) { return true, errors.New("the kernel says no") })
	err := h.nri.Run(t.Context(), h.pod("s1", "a"))
	if err == nil || !strings.Contains(err.Error(), "the kernel says no") {
		t.Errorf("error %v", err)
	}
	got := h.got()
	if got.tries < 3 {
		t.Errorf("%d tries", got.tries)
	}
	if !slices.Equal(got.results, []HookResult{HookRefused}) {
		t.Errorf("results %v", got.results)
	}
	if w := got.warnings; len(w) != 1 || !strings.HasPrefix(w[0], "Pod ns/a PolicyNotEnforced: ") || !strings.Contains(w[0], "the kernel says no") {
		t.Errorf("warnings %q", w)
	}
	if lines := h.log.With("Pod refused"); len(lines) != 1 {
		t.Errorf("log %q", lines)
	}
	h.sink.becomes(t)

	h.setEnforce(func(try int) (bool, error) {
		if try == got.tries+1 {
			return false, errors.New("for a moment")
		}
		return true, nil
	})
	if err := h.nri.Run(t.Context(), h.pod("s2", "a")); err != nil {
		t.Error(err)
	}
	h.sink.becomes(t, "a = s2")

	// A network namespace that cannot be opened refuses no pod without rules.
	gone := h.pod("s3", "b")
	gone.NetNS = "/var/run/netns/gone"
	h.setEnforce(func(int) (bool, error) { return false, nil })
	if err := h.nri.Run(t.Context(), gone); err != nil {
		t.Error(err)
	}
	h.setEnforce(func(int) (bool, error) { return false, errors.New("not known where") })
	if err := h.nri.Run(t.Context(), gone); err == nil || !strings.Contains(err.Error(), "netns/gone") {
		t.Errorf("error %v", err)
	}

	// The runtime would give up an Enforce that never returns.
	leave := make(chan struct{})
	h.setEnforce(func(int) (bool, error) { <-leave; return true, nil })
	if err := h.nri.Run(t.Context(), h.pod("s4", "c")); err == nil || !strings.Contains(err.Error(), errLate.Error()) {
		t.Errorf("error %v", err)
	}
	close(leave)
	if h.nri.Plugins() != 1 {
		t.Error("the plugin was thrown out")
	}
}

// A runtime that is absent at first, hangs up or restarts is an outage each time. The plugin recovers by itself.
func TestNRIReconnects(t *testing.T) {
	t.Parallel()
	h := newHooked(t)
	h.start()
	h.config.Socket = "unix:///" + nriSocket
	stop := h.begin()
	await.That(t, "an outage", func() bool { return len(h.log.With("(NRI) failed")) == 1 })
	if err := h.nri.Start(); err != nil {
		t.Fatal(err)
	}
	await.That(t, "works", func() bool { return len(h.log.With("(NRI) works again")) == 1 })
	h.nri.SetPods(h.pod("s1", "a"))
	h.nri.Cut()
	await.That(t, "another outage", func() bool { return len(h.log.With("(NRI) failed")) == 2 })
	await.That(t, "works", func() bool { return len(h.log.With("(NRI) works again")) == 2 })
	h.sink.becomes(t, "a = s1")
	await.That(t, "a plugin", func() bool { return h.nri.Plugins() >= 1 })
	h.nri.Stop()
	await.That(t, "a third outage", func() bool { return len(h.log.With("(NRI) failed")) == 3 })
	if err := h.nri.Start(); err != nil {
		t.Fatal(err)
	}
	await.That(t, "a plugin", func() bool { return h.nri.Plugins() == 1 })
	if err := h.nri.Run(t.Context(), h.pod("s2", "b")); err != nil {
		t.Fatal(err)
	}
	got := h.got()
	if !slices.Equal(got.results, []HookResult{HookEnforced}) {
		t.Errorf("results %v", got.results)
	}
	if want := []bool{true, false, true, false, true, false}; !slices.Equal(got.outages, want) {
		t.Errorf("outages %v, want %v", got.outages, want)
	}
	if want := []NRIState{NRIRefused, NRIConnected, NRIRefused, NRIConnected, NRIRefused, NRIConnected}; !slices.Equal(got.states, want) {
		t.Errorf("states %v, want %v", got.states, want)
	}
	stop()
	if end := h.got(); len(end.outages) != 6 || len(end.states) != 6 {
		t.Errorf("the end is an outage: %v, %v", end.outages, end.states)
	}
}

// Without a socket, and with a socket without a listener, NRIAuto means no NRI. The log says so once.
func TestNRIAbsent(t *testing.T) {
	for name, prepare := range map[string]func(path string){
		"no socket": func(string) {},
		"a socket that is left": func(path string) {
			n := cluster.NewNRI(path)
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path, path+".moved"); err != nil { // its end removes the old path
				t.Fatal(err)
			}
			n.Stop()
			if err := os.Rename(path+".moved", path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHooked(t)
			prepare(filepath.Join(h.root, nriSocket))
			stop := h.begin()
			await.That(t, "it is logged", func() bool { return len(h.log.With("NRI unavailable")) == 1 })
			if got := h.got(); len(got.outages) > 0 || !slices.Equal(got.states, []NRIState{NRIAbsent}) {
				t.Errorf("outages %v, states %v", got.outages, got.states)
			}
			stop()
		})
	}
	t.Run("switched off", func(t *testing.T) {
		h := newHooked(t)
		h.config.Socket = NRINone
		NewNRI(t.Context(), h.config).Run(t.Context()) // returns
		if got := h.got(); !slices.Equal(got.states, []NRIState{NRIOff}) {
			t.Errorf("states %v", got.states)
		}
	})
}

// The sandboxes that the runtime names when the plugin connects fill gaps and change nothing else: they include sandboxes
// that have ended, and nothing shows which of two sandboxes of a pod is newer.
func TestNRISynchronize(t *testing.T) {
	t.Parallel()
	h := newHooked(t)
	h.runtime.Set(h.sandbox("s2", "a", 2))
	h.start()
	h.sink.becomes(t, "a = s2")
	ended := h.pod("s4", "c")
	ended.NetNS = "/var/run/netns/gone"
	host := h.pod("s5", "d")
	host.NetNS = ""
	h.nri.SetPods(h.pod("s1", "a"), h.pod("s3", "b"), ended, host)
	h.connected()
	h.sink.becomes(t, "a = s2", "b = s3")
	if got := h.got(); len(got.announced) > 0 {
		t.Errorf("announced: %v", got.announced)
	}
}

// Lists and NRI events agree in the end: a list without a new sandbox does not remove the sandbox, and a list with an ended
// sandbox does not bring the sandbox back. Once a list had the sandbox, the lists decide.
func TestNRIAndLists(t *testing.T) {
	t.Parallel()
	h := newHooked(t)
	h.start()
	await.That(t, "in sync", h.sandboxes.HasSynced)
	h.connected()
	pod := h.pod("s1", "a")
	if err := h.nri.Run(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	h.polls(3)
	h.sink.becomes(t, "a = s1")
	h.runtime.Set(h.sandbox("s1", "a", 1))
	h.polls(3)
	h.sink.becomes(t, "a = s1")
	h.nri.End(t.Context(), pod)
	h.polls(3)
	h.sink.becomes(t)

	if err := h.nri.Run(t.Context(), h.pod("s2", "a")); err != nil {
		t.Fatal(err)
	}
	h.polls(2)
	h.sink.becomes(t, "a = s2")
	h.nri.End(t.Context(), pod) // the old sandbox is removed late
	h.runtime.Set(h.sandbox("s2", "a", 2))
	h.polls(2)
	h.sink.becomes(t, "a = s2")
	h.runtime.Set(h.sandbox("s3", "a", 3), h.sandbox("s2", "a", 2))
	h.sink.becomes(t, "a = s3")
	h.runtime.Set()
	h.sink.becomes(t)
}

// The end of the agent waits for a pod that starts, so that the pod gets its answer.
func TestNRIEndsAfterHooks(t *testing.T) {
	t.Parallel()
	h := newHooked(t)
	h.start()
	entered, leave := make(chan struct{}), make(chan struct{})
	h.setEnforce(func(int) (bool, error) { close(entered); <-leave; return true, nil })
	stop := h.connected()
	started := make(chan error)
	go func() { started <- h.nri.Run(t.Context(), h.pod("s1", "a")) }()
	<-entered
	ended, begin := make(chan struct{}), time.Now()
	go func() { stop(); close(ended) }()
	select {
	case <-ended:
		t.Error("the plugin ended before its hook")
	case <-time.After(100 * time.Millisecond):
	}
	close(leave)
	if err := <-started; err != nil {
		t.Error(err)
	}
	<-ended
	if took := time.Since(begin); took > hookEnd*3/4 {
		t.Errorf("the end took %s", took)
	}
	if got := h.got(); !slices.Equal(got.results, []HookResult{HookEnforced}) {
		t.Errorf("results %v", got.results)
	}
}
