package sandbox

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/net/multiplex"
	"github.com/containerd/nri/pkg/stub"
	"github.com/containerd/ttrpc"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// mute is a runtime that takes a plugin's registration, and then asks for nothing.
type mute struct{ registered chan struct{} }

// RegisterPlugin is NRI's.
func (m mute) RegisterPlugin(context.Context, *api.RegisterPluginRequest) (*api.Empty, error) {
	m.registered <- struct{}{}
	return &api.Empty{}, nil
}

// UpdateContainers is NRI's.
func (mute) UpdateContainers(context.Context, *api.UpdateContainersRequest) (*api.UpdateContainersResponse, error) {
	return &api.UpdateContainersResponse{}, nil
}

// serve takes plugins until the listener is closed.
func (m mute) serve(t *testing.T, l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		mux := multiplex.Multiplex(conn)
		t.Cleanup(func() { mux.Close() })
		inner, err := mux.Listen(multiplex.RuntimeServiceConn)
		if err != nil {
			t.Error(err)
			return
		}
		server, err := ttrpc.NewServer()
		if err != nil {
			t.Error(err)
			return
		}
		api.RegisterRuntimeService(server, m)
		t.Cleanup(func() { server.Close() })
		go server.Serve(context.Background(), inner) //nolint:errcheck // it ends with the test
	}
}

// A runtime that takes a registration and then says nothing is given up, and nothing of the try is left behind.
func TestMuteRuntime(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := mute{registered: make(chan struct{}, 100)}
	go m.serve(t, l)
	n := NewNRI(t.Context(), NRIConfig{Socket: socket})
	n.registerLimit = time.Second
	for deadline := time.Now().Add(time.Minute); len(m.registered) < 2; { // on a busy machine it may be given up before it registers
		if err := n.connect(t.Context()); !errors.Is(err, errRejected) {
			t.Fatalf("error %v", err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("it registered %d times", len(m.registered))
		}
	}
	plugins := func() int {
		stacks := make([]byte, 1<<20)
		return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "stub.(*stub)")
	}
	for deadline := time.Now().Add(10 * time.Second); plugins() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines of plugins are left", plugins())
		}
	}
}

// hook is a plugin without a connection, for a bubble of package synctest.
type hook struct {
	*hooked
	plugin *plugin
	cache  *cache.Cache
}

// patient is the library's side of a connection whose runtime waits two seconds for an answer.
type patient struct{ stub.Stub }

// RequestTimeout implements stub.Stub.
func (patient) RequestTimeout() time.Duration { return 2 * time.Second }

func newHook(t *testing.T) *hook {
	state, held := cache.New(cache.Options{Node: "here"}), &sink{held: map[types.UID]cache.Sandbox{}}
	h := &hooked{
		node:    &node{sink: held, sandboxes: New(Config{Sink: both{state, held}, Notify: func() {}})},
		enforce: func(int) (bool, error) { return true, nil },
	}
	n := NewNRI(t.Context(), NRIConfig{
		Node: "here", Sandboxes: h.sandboxes, Settings: informers.Settings{Limits: state.Limits()},
		Announce: state.AnnouncePod, Enforce: h.enforceNow, Events: h, Observer: h,
	})
	return &hook{h, &plugin{NRI: n, log: n.log, stub: patient{}}, state}
}

// start asks the hook about a sandbox of the pod a.
func (h *hook) start(t *testing.T, id string) error {
	return h.plugin.RunPodSandbox(t.Context(), &api.PodSandbox{
		Id: id, Uid: "a", Namespace: "ns", Name: "a",
		Linux: &api.LinuxPodSandbox{Namespaces: []*api.LinuxNamespace{{Type: "network", Path: "/proc/self/ns/net"}}},
	})
}

// both is a cache and a sink.
type both struct {
	*cache.Cache
	second *sink
}

// SetSandbox implements Sink.
func (b both) SetSandbox(uid types.UID, s cache.Sandbox) {
	b.Cache.SetSandbox(uid, s)
	b.second.SetSandbox(uid, s)
}

// DeleteSandbox implements Sink.
func (b both) DeleteSandbox(uid types.UID) {
	b.Cache.DeleteSandbox(uid)
	b.second.DeleteSandbox(uid)
}

// The hook answers before the runtime gives up, whatever holds the hook up, and refuses the pod. When the hook goes on
// later, it leaves neither a sandbox nor a pod behind.
func TestHookAnswersInTime(t *testing.T) {
	for name, hang := range map[string]func(h *hook, hung <-chan struct{}){
		"Enforce": func(h *hook, hung <-chan struct{}) {
			h.enforce = func(int) (bool, error) { <-hung; return true, nil }
		},
		"Enforce fails": func(h *hook, _ <-chan struct{}) {
			h.enforce = func(int) (bool, error) { return false, errors.New("the kernel says no") }
		},
		"Announce": func(h *hook, hung <-chan struct{}) {
			h.plugin.config.Announce = func(p cache.Pod) { <-hung; time.Sleep(time.Second); h.cache.AnnouncePod(p) }
		},
		"the lock of the sandboxes": func(h *hook, hung <-chan struct{}) {
			h.sandboxes.config.Found = func(types.UID, time.Time) { <-hung }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHook(t)
				hung := make(chan struct{})
				hang(h, hung)
				begin := time.Now()
				err := h.start(t, "s")
				if took := time.Since(begin); err == nil || took > 1600*time.Millisecond {
					t.Errorf("error %v after %s", err, took)
				}
				close(hung)
				time.Sleep(time.Minute)
				if got := h.sink.state(); len(got) > 0 {
					t.Errorf("left behind: %q", got)
				}
				if pod, known := h.cache.LocalPod(cache.Key{Namespace: "ns", Name: "a"}); known {
					t.Errorf("left behind: pod %s", pod)
				}
				got := h.got()
				if !slices.Equal(got.results, []HookResult{HookRefused}) || len(got.warnings) != 1 {
					t.Errorf("results %v, warnings %q", got.results, got.warnings)
				}
			})
		})
	}
}

// A hook that goes on after it was refused takes nothing away from the next try of the pod.
func TestNextTryAfterLateHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHook(t)
		hung := make(chan struct{})
		h.enforce = func(try int) (bool, error) {
			if try == 1 {
				<-hung
			}
			return true, nil
		}
		if err := h.start(t, "s1"); err == nil {
			t.Error("started without rules")
		}
		if err := h.start(t, "s2"); err != nil {
			t.Error(err)
		}
		close(hung)
		synctest.Wait()
		if got := h.sink.state(); !slices.Equal(got, []string{"a = s2"}) {
			t.Errorf("the sink holds %q", got)
		}
		if _, known := h.cache.LocalPod(cache.Key{Namespace: "ns", Name: "a"}); !known {
			t.Error("the cache does not know the pod")
		}
	})
}
