package sandbox_test

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

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
)

const nriSocket = "run/nri/nri.sock"

// hooked is a node whose runtime has NRI, and what is told through it.
type hooked struct {
	*node
	nri    *cluster.NRI
	config informers.NRIConfig

	mu        sync.Mutex
	announced []*corev1.Pod
	enforce   func(try int) (bool, error)
	tries     int
	results   []informers.HookResult
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
	h.config = informers.NRIConfig{
		Socket: informers.NRIAuto, HostPrefix: h.root, Node: "here", Sandboxes: h.source, Events: h,
		Announce: func(p *corev1.Pod) { h.mu.Lock(); defer h.mu.Unlock(); h.announced = append(h.announced, p) },
		Outage:   func(_ string, down bool) { h.mu.Lock(); defer h.mu.Unlock(); h.outages = append(h.outages, down) },
		Hooked: func(r informers.HookResult, _ time.Duration) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.results = append(h.results, r)
		},
		Enforce: func(_ context.Context, pod cache.Key, uid types.UID) (bool, error) {
			h.mu.Lock()
			h.tries++
			try := h.tries
			h.mu.Unlock()
			if pod.Name != string(uid) || pod.Namespace != "ns" {
				return false, fmt.Errorf("asked about pod %s, %s", pod, uid)
			}
			return h.enforce(try)
		},
	}
	return h
}

// Warn is an Event.
func (h *hooked) Warn(about informers.Subject, reason, message string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.warnings = append(h.warnings, fmt.Sprintf("%s %s %s: %s", about.Kind, about, reason, message))
}

// begin starts the plugin.
func (h *hooked) begin() (stop func()) {
	ctx, cancel := context.WithCancel(logr.NewContext(context.Background(), h.log.logger()))
	plugin := informers.NewNRI(ctx, h.config)
	done := make(chan struct{})
	go func() { plugin.Run(ctx); close(done) }()
	stop = func() { cancel(); <-done }
	h.t.Cleanup(stop)
	return stop
}

func (h *hooked) connected() {
	h.t.Helper()
	if err := h.nri.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.begin()
	eventually(h.t, "a plugin", func() bool { return h.nri.Plugins() == 1 })
}

// pod is one whose network namespace can be opened.
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

func (h *hooked) got() (results []informers.HookResult, outages []bool, warnings []string, tries int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.results), slices.Clone(h.outages), slices.Clone(h.warnings), h.tries
}

func TestNRI(t *testing.T) {
	h := newHooked(t)
	h.start()
	h.connected()
	pod := h.pod("s1", "a")
	if err := h.nri.Run(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	h.sink.becomes(t, "sandbox a = s1")
	want := &corev1.Pod{Spec: corev1.PodSpec{NodeName: "here"}, Status: corev1.PodStatus{Phase: corev1.PodPending}}
	want.Namespace, want.Name, want.UID = "ns", "a", "a"
	want.Labels = map[string]string{"app": "web"}
	want.Annotations = map[string]string{"k8s.v1.cni.cncf.io/networks": "net"}
	if diff := cmp.Diff([]*corev1.Pod{want}, h.announced); diff != "" {
		t.Errorf("announced (-want +got):\n%s", diff)
	}
	h.enforce = func(int) (bool, error) { return false, nil }
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
	results, outages, warnings, tries := h.got()
	if diff := cmp.Diff([]informers.HookResult{
		informers.HookEnforced, informers.HookUnselected, informers.HookHostNetwork, informers.HookUnselected,
	}, results); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	if len(outages)+len(warnings) > 0 || tries != 2 || len(h.announced) != 2 {
		t.Errorf("outages %v, warnings %q, asked %d times, announced %d", outages, warnings, tries, len(h.announced))
	}
	h.sink.becomes(t, "sandbox a = s1", "sandbox b = s2", "sandbox d = s4")
	h.nri.End(t.Context(), pod)
	h.sink.becomes(t, "sandbox b = s2", "sandbox d = s4")
}

// A pod whose rules cannot be put in force does not start, and that is said. One that fails for a moment does.
func TestNRIRefuses(t *testing.T) {
	h := newHooked(t)
	h.start()
	h.connected()
	h.enforce = func(int) (bool, error) { return true, errors.New("the kernel says no") }
	start := time.Now()
	err := h.nri.Run(t.Context(), h.pod("s1", "a"))
	took := time.Since(start)
	if err == nil || !strings.Contains(err.Error(), "the kernel says no") {
		t.Errorf("error %v", err)
	}
	results, _, warnings, tries := h.got()
	if took > 1800*time.Millisecond || tries < 3 {
		t.Errorf("took %s, %d tries", took, tries)
	}
	if !slices.Equal(results, []informers.HookResult{informers.HookRefused}) {
		t.Errorf("results %v", results)
	}
	if len(warnings) != 1 || !strings.HasPrefix(warnings[0], "Pod ns/a PolicyNotEnforced: ") || !strings.Contains(warnings[0], "the kernel says no") {
		t.Errorf("warnings %q", warnings)
	}
	if lines := h.log.with("does not start"); len(lines) != 1 {
		t.Errorf("log %q", lines)
	}
	h.sink.becomes(t)

	h.enforce = func(try int) (bool, error) {
		if try == tries+1 {
			return false, errors.New("for a moment")
		}
		return true, nil
	}
	if err := h.nri.Run(t.Context(), h.pod("s2", "a")); err != nil {
		t.Error(err)
	}
	h.sink.becomes(t, "sandbox a = s2")

	// Its namespace cannot be opened: that alone refuses nobody, as it may have no rules.
	gone := h.pod("s3", "b")
	gone.NetNS = "/var/run/netns/gone"
	h.enforce = func(int) (bool, error) { return false, nil }
	if err := h.nri.Run(t.Context(), gone); err != nil {
		t.Error(err)
	}
	h.enforce = func(int) (bool, error) { return false, errors.New("not known where") }
	if err := h.nri.Run(t.Context(), gone); err == nil || !strings.Contains(err.Error(), "netns/gone") {
		t.Errorf("error %v", err)
	}
	if h.nri.Plugins() != 1 {
		t.Error("the plugin was thrown out")
	}
}

// The runtime is lost, comes back, is restarted: one outage each, in which pods start, and which ends by itself.
func TestNRIReconnects(t *testing.T) {
	h := newHooked(t)
	h.start()
	h.config.Socket = "unix:///" + nriSocket
	stop := h.begin()
	eventually(t, "an outage", func() bool { return len(h.log.with("(NRI) failed")) == 1 })
	if err := h.nri.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "works", func() bool { return len(h.log.with("(NRI) works again")) == 1 })
	h.nri.SetPods(h.pod("s1", "a"))
	h.nri.Cut()
	eventually(t, "another outage", func() bool { return len(h.log.with("(NRI) failed")) == 2 })
	eventually(t, "works", func() bool { return len(h.log.with("(NRI) works again")) == 2 })
	h.sink.becomes(t, "sandbox a = s1")
	eventually(t, "a plugin", func() bool { return h.nri.Plugins() >= 1 })
	h.nri.Stop()
	eventually(t, "a third outage", func() bool { return len(h.log.with("(NRI) failed")) == 3 })
	if err := h.nri.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a plugin", func() bool { return h.nri.Plugins() == 1 })
	if err := h.nri.Run(t.Context(), h.pod("s2", "b")); err != nil {
		t.Fatal(err)
	}
	results, outages, _, _ := h.got()
	if !slices.Equal(results, []informers.HookResult{informers.HookEnforced}) {
		t.Errorf("results %v", results)
	}
	if want := []bool{true, false, true, false, true, false}; !slices.Equal(outages, want) {
		t.Errorf("outages %v, want %v", outages, want)
	}
	stop()
	if _, outages, _, _ := h.got(); len(outages) != 6 {
		t.Errorf("the end is an outage: %v", outages)
	}
}

// Without a socket, and with one that nobody listens on any more, auto is none, which is said once.
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
			eventually(t, "it is said", func() bool { return len(h.log.with("No NRI")) == 1 })
			if _, outages, _, _ := h.got(); len(outages) > 0 {
				t.Errorf("outages %v", outages)
			}
			stop()
		})
	}
	t.Run("switched off", func(t *testing.T) {
		h := newHooked(t)
		h.config.Socket = informers.NRINone
		informers.NewNRI(t.Context(), h.config).Run(t.Context()) // returns
	})
}

// What the runtime tells of at first fills gaps and changes nothing else: of two sandboxes of a pod it does not say which
// is the newer one, and it tells of those that have ended.
func TestNRISynchronize(t *testing.T) {
	h := newHooked(t)
	h.runtime.Set(h.sandbox("s2", "a", 2))
	h.start()
	h.sink.becomes(t, "sandbox a = s2")
	ended := h.pod("s4", "c")
	ended.NetNS = "/var/run/netns/gone"
	host := h.pod("s5", "d")
	host.NetNS = ""
	h.nri.SetPods(h.pod("s1", "a"), h.pod("s3", "b"), ended, host)
	h.connected()
	h.sink.becomes(t, "sandbox a = s2", "sandbox b = s3")
	if len(h.announced) > 0 {
		t.Errorf("announced: %v", h.announced)
	}
}

// Lists of the runtime and what NRI tells go together: a list that does not have a sandbox yet does not take it away, one
// that still has it does not bring it back, and one that has had it decides.
func TestNRIAndLists(t *testing.T) {
	h := newHooked(t)
	h.start()
	eventually(t, "in sync", h.source.HasSynced)
	h.connected()
	polls := func(n int) {
		t.Helper()
		before, _ := h.runtime.Calls()
		eventually(t, "polls", func() bool {
			h.source.Poke("")
			lists, _ := h.runtime.Calls()
			return lists >= before+n
		})
	}
	pod := h.pod("s1", "a")
	if err := h.nri.Run(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	polls(3)
	h.sink.becomes(t, "sandbox a = s1")
	h.runtime.Set(h.sandbox("s1", "a", 1))
	polls(3)
	h.sink.becomes(t, "sandbox a = s1")
	h.nri.End(t.Context(), pod)
	polls(3)
	h.sink.becomes(t)

	if err := h.nri.Run(t.Context(), h.pod("s2", "a")); err != nil {
		t.Fatal(err)
	}
	polls(2)
	h.sink.becomes(t, "sandbox a = s2")
	h.nri.End(t.Context(), pod) // the old one is removed late
	h.runtime.Set(h.sandbox("s2", "a", 2))
	polls(2)
	h.sink.becomes(t, "sandbox a = s2")
	h.runtime.Set(h.sandbox("s3", "a", 3), h.sandbox("s2", "a", 2))
	h.sink.becomes(t, "sandbox a = s3")
	h.runtime.Set()
	h.sink.becomes(t)
}
