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

// Pod is a pod with its sandbox, as the runtime knows it.
type Pod struct {
	SandboxID   string
	UID         string
	Namespace   string
	Name        string
	Labels      map[string]string
	Annotations map[string]string
	NetNS       string // empty: on the host's network
}

// NRI is the runtime's side of NRI on a unix socket. It uses the library of containerd and CRI-O. Plugins connect through a
// proxy, so that a test can cut their connections like a crash of the runtime.
type NRI struct {
	socket  string
	plugins atomic.Int32

	// mu guards the fields below.
	mu sync.Mutex
	// runtime is the library of runtimes, behind the proxy; nil: stopped.
	runtime *adaptation.Adaptation
	proxy   net.Listener
	conns   []net.Conn
	pods    []Pod
}

// NewNRI returns an NRI that listens after Start.
func NewNRI(socket string) *NRI { return &NRI{socket: socket} }

// Start starts to listen. It may be called again after Stop.
func (n *NRI) Start() error {
	// The library listens on an inner socket, and takes no plugins from the file system.
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

// accept copies bytes between each plugin and the library, which listens on the socket inner.
func (n *NRI) accept(proxy net.Listener, inner string) {
	for {
		plugin, err := proxy.Accept()
		if err != nil {
			return
		}
		runtime, err := net.Dial("unix", inner)
		if err != nil {
			plugin.Close() //nolint:errcheck // the plugin notices
			continue
		}
		n.mu.Lock()
		n.conns = append(n.conns, plugin, runtime)
		n.mu.Unlock()
		for from, to := range map[net.Conn]net.Conn{plugin: runtime, runtime: plugin} {
			go func() {
				io.Copy(to, from) //nolint:errcheck // it ends when a side closes its connection
				to.Close()        //nolint:errcheck // it may be closed already
			}()
		}
	}
}

// Stop closes the connections of all plugins and removes the socket.
func (n *NRI) Stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.runtime == nil {
		return
	}
	n.proxy.Close() //nolint:errcheck // it is closed in any case
	n.cut()
	n.runtime.Stop()
	n.runtime = nil
	n.plugins.Store(0)
}

// Cut closes the connections of all plugins. They can connect again.
func (n *NRI) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut()
}

// cut closes both sides of each proxied connection. The caller holds the lock.
func (n *NRI) cut() {
	for _, c := range n.conns {
		c.Close() //nolint:errcheck // it may be closed already
	}
	n.conns = nil
}

// SetPods sets the pods that a plugin receives when it connects (Synchronize).
func (n *NRI) SetPods(pods ...Pod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pods = pods
}

// Plugins returns the number of connected plugins that have received all pods.
func (n *NRI) Plugins() int { return int(n.plugins.Load()) }

// Run calls the plugins for a pod that starts, like a runtime when the pod's network is ready. If it returns an error, the pod
// does not start.
func (n *NRI) Run(ctx context.Context, p Pod) error {
	r := n.current()
	err := r.RunPodSandbox(ctx, &api.RunPodSandboxRequest{Pod: p.sandbox()})
	if err != nil { // as containerd does
		n.End(ctx, p)
	}
	return err
}

// End calls the plugins for a pod whose sandbox is stopped and removed.
func (n *NRI) End(ctx context.Context, p Pod) {
	r := n.current()
	r.StopPodSandbox(ctx, &api.StopPodSandboxRequest{Pod: p.sandbox()})     //nolint:errcheck // the end of a sandbox cannot be refused
	r.RemovePodSandbox(ctx, &api.RemovePodSandboxRequest{Pod: p.sandbox()}) //nolint:errcheck // as above
}

// current returns the library of the last Start.
func (n *NRI) current() *adaptation.Adaptation {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.runtime
}

// synchronize passes the pods to a plugin that connects.
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

// refuseUpdates ignores updates of containers that a plugin asks for, since the pods have no containers.
func refuseUpdates(context.Context, []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) {
	return nil, nil
}

// sandbox returns the pod in the types of NRI. A pod on the host's network has no network namespace of its own.
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

// counted counts the connected plugins. It implements the metrics interface of the library.
type counted struct{ nri *NRI }

// RecordPluginInvocation implements adaptation.Metrics.
func (counted) RecordPluginInvocation(string, string, error) {}

// RecordPluginLatency implements adaptation.Metrics.
func (counted) RecordPluginLatency(string, string, time.Duration) {}

// RecordPluginAdjustments implements adaptation.Metrics.
func (counted) RecordPluginAdjustments(string, string, *api.ContainerAdjustment, int, int) {}

// UpdatePluginCount implements adaptation.Metrics.
func (c counted) UpdatePluginCount(count int) { c.nri.plugins.Store(int32(count)) }

// silenced turns off the library's log, which is global.
var silenced = sync.OnceFunc(func() { nrilog.Set(silence{}) })

// silence is a logger that discards everything.
type silence struct{}

// Debugf implements log.Logger of NRI.
func (silence) Debugf(context.Context, string, ...any) {}

// Infof implements log.Logger of NRI.
func (silence) Infof(context.Context, string, ...any) {}

// Warnf implements log.Logger of NRI.
func (silence) Warnf(context.Context, string, ...any) {}

// Errorf implements log.Logger of NRI.
func (silence) Errorf(context.Context, string, ...any) {}
