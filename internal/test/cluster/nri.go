package cluster

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	nrilog "github.com/containerd/nri/pkg/log"
)

// Pod is a pod as a runtime knows it.
type Pod struct {
	SandboxID   string
	UID         string
	Namespace   string
	Name        string
	Labels      map[string]string
	Annotations map[string]string
	NetNS       string // empty: on the host's network
}

// NRI is the runtime's side of NRI on a unix socket: what containerd and CRI-O are made of, behind a proxy, so that the
// connections of plugins can be cut as a runtime that crashes does.
type NRI struct {
	socket  string
	plugins atomic.Int32

	mu      sync.Mutex
	runtime *adaptation.Adaptation
	proxy   net.Listener
	conns   []net.Conn
	pods    []Pod
}

// NewNRI makes one that listens once it is started.
func NewNRI(socket string) *NRI { return &NRI{socket: socket} }

// Start listens, again after Stop.
func (n *NRI) Start() error {
	silenced()
	inner := n.socket + ".inner"
	none := filepath.Join(filepath.Dir(n.socket), "none")
	runtime, err := adaptation.New("test", "1", n.synchronize, refuseUpdates, adaptation.WithSocketPath(inner),
		adaptation.WithPluginPath(none), adaptation.WithPluginConfigPath(none), adaptation.WithMetrics(counted{n}))
	if err != nil {
		return err
	}
	if err := runtime.Start(); err != nil {
		return err
	}
	proxy, err := net.Listen("unix", n.socket)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.runtime, n.proxy = runtime, proxy
	go n.accept(proxy, inner)
	return nil
}

func (n *NRI) accept(proxy net.Listener, inner string) {
	for {
		plugin, err := proxy.Accept()
		if err != nil {
			return
		}
		runtime, err := net.Dial("unix", inner)
		if err != nil {
			plugin.Close() //nolint:errcheck // it sees that
			continue
		}
		n.mu.Lock()
		n.conns = append(n.conns, plugin, runtime)
		n.mu.Unlock()
		for from, to := range map[net.Conn]net.Conn{plugin: runtime, runtime: plugin} {
			go func() {
				io.Copy(to, from) //nolint:errcheck // it ends with a connection
				to.Close()        //nolint:errcheck // it may be closed
			}()
		}
	}
}

// Stop hangs up on all plugins and removes the socket.
func (n *NRI) Stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.runtime == nil {
		return
	}
	n.proxy.Close() //nolint:errcheck // it is gone either way
	n.cut()
	n.runtime.Stop()
	n.runtime = nil
	n.plugins.Store(0)
}

// Cut hangs up on all plugins.
func (n *NRI) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut()
}

func (n *NRI) cut() {
	for _, c := range n.conns {
		c.Close() //nolint:errcheck // it may be closed
	}
	n.conns = nil
}

// SetPods says what there is when a plugin connects.
func (n *NRI) SetPods(pods ...Pod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pods = pods
}

// Plugins is how many have connected since the start and were told of all pods.
func (n *NRI) Plugins() int { return int(n.plugins.Load()) }

// Run asks the plugins about a pod that starts, as a runtime does when its network is there. An error is a pod that does
// not start.
func (n *NRI) Run(ctx context.Context, p Pod) error {
	r := n.current()
	err := r.RunPodSandbox(ctx, &api.RunPodSandboxRequest{Pod: p.sandbox()})
	if err != nil { // as containerd does
		n.End(ctx, p)
	}
	return err
}

// End tells the plugins that a pod's sandbox is stopped and removed.
func (n *NRI) End(ctx context.Context, p Pod) {
	r := n.current()
	r.StopPodSandbox(ctx, &api.StopPodSandboxRequest{Pod: p.sandbox()})     //nolint:errcheck // nobody can do anything about it
	r.RemovePodSandbox(ctx, &api.RemovePodSandboxRequest{Pod: p.sandbox()}) //nolint:errcheck // as above
}

func (n *NRI) current() *adaptation.Adaptation {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.runtime
}

func (n *NRI) synchronize(ctx context.Context, tell adaptation.SyncCB) error {
	n.mu.Lock()
	var pods []*api.PodSandbox
	for _, p := range n.pods {
		pods = append(pods, p.sandbox())
	}
	n.mu.Unlock()
	_, err := tell(ctx, pods, nil)
	return err
}

func refuseUpdates(context.Context, []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) {
	return nil, nil
}

func (p Pod) sandbox() *api.PodSandbox {
	namespaces := []*api.LinuxNamespace{{Type: "pid"}, {Type: "ipc"}}
	if p.NetNS != "" {
		namespaces = append(namespaces, &api.LinuxNamespace{Type: "network", Path: p.NetNS})
	}
	return &api.PodSandbox{
		Id: p.SandboxID, Uid: p.UID, Namespace: p.Namespace, Name: p.Name, Labels: p.Labels, Annotations: p.Annotations,
		Linux: &api.LinuxPodSandbox{Namespaces: namespaces},
	}
}

// counted counts the plugins that have connected.
type counted struct{ nri *NRI }

// RecordPluginInvocation is the library's.
func (counted) RecordPluginInvocation(string, string, error) {}

// RecordPluginLatency is the library's.
func (counted) RecordPluginLatency(string, string, time.Duration) {}

// RecordPluginAdjustments is the library's.
func (counted) RecordPluginAdjustments(string, string, *api.ContainerAdjustment, int, int) {}

// UpdatePluginCount is the library's.
func (c counted) UpdatePluginCount(count int) { c.nri.plugins.Store(int32(count)) }

// silenced sets the library's log, which is one for all.
var silenced = sync.OnceFunc(func() { nrilog.Set(silence{}) })

// silence is a log of the library that nobody reads.
type silence struct{}

// Debugf is the library's.
func (silence) Debugf(context.Context, string, ...any) {}

// Infof is the library's.
func (silence) Infof(context.Context, string, ...any) {}

// Warnf is the library's.
func (silence) Warnf(context.Context, string, ...any) {}

// Errorf is the library's.
func (silence) Errorf(context.Context, string, ...any) {}
