package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	"github.com/go-logr/logr"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/outage"
)

// Values of NRIConfig.Socket in place of a path.
const (
	NRIAuto = "auto" // a well-known socket, if it exists
	NRINone = "none" // no NRI
)

// NRISourceName is the name of NRI as an input, in metrics and health.
const NRISourceName = "NRI"

// Name and place of the plugin, and timeouts.
const (
	pluginName    = "multi-networkpolicy-nftables"
	pluginIndex   = "90"             // late in the order of plugins (00 to 99), after plugins that add interfaces to a pod
	socketPoll    = 10 * time.Second // between checks for a well-known socket
	registerLimit = 10 * time.Second // timeout for a runtime to accept the plugin
	hookEnd       = 2 * time.Second  // timeout for running hooks when the agent stops
)

// NRIState is the state of the connection to the runtime's NRI.
type NRIState string

// The states. Only with NRIConnected are pods protected from their start.
const (
	NRIConnected NRIState = "connected" // the runtime asks before it starts a pod
	NRIRefused   NRIState = "refused"   // the runtime has NRI, but does not accept the plugin or hung up
	NRIAbsent    NRIState = "absent"    // the runtime has no NRI
	NRIOff       NRIState = "off"       // the user has switched NRI off (--nri-socket=none)
)

// NRIStates lists the states.
var NRIStates = []NRIState{NRIConnected, NRIRefused, NRIAbsent, NRIOff}

// wellKnownNRISockets are the default sockets of containerd and CRI-O. The containerd of k3s, RKE2, k0s and MicroK8s has the same
// default. /var/run is a link to /run on most hosts.
var wellKnownNRISockets = []string{"/run/nri/nri.sock", "/var/run/nri/nri.sock"}

// Causes of a missing connection, for the log and for isOptional.
var (
	errNoNRI    = errors.New("no NRI socket")
	errRejected = errors.New("the runtime does not take the plugin")
	errHungUp   = errors.New("the runtime hung up")
)

// NRIConfig configures NRI. All fields but Events and Observer are required.
type NRIConfig struct {
	Socket     string // a path on the host, NRIAuto or NRINone
	HostPrefix string // directory where the host's root directory is mounted
	Node       string // name of the node
	Sandboxes  *Sandboxes
	Settings   informers.Settings
	// Announce must make the pod known to the sink before it returns: Enforce follows at once.
	Announce func(pod cache.Pod) // called with each pod that starts, since the API server's event may come later

	// Enforce applies a pod's rules and returns when they are in force. enforced is false if no policy selects the pod; it
	// must return at once then.
	Enforce func(ctx context.Context, pod cache.PodID) (enforced bool, err error)

	Events   informers.EventSink // nil: no Events
	Observer NRIObserver         // nil: no observer
}

// NRIObserver is notified of hooks and of the connection. Its methods must not block.
type NRIObserver interface {
	NRIState(NRIState)                            // the state, possibly unchanged
	Hooked(result HookResult, took time.Duration) // a hook has its answer
	Outage(source string, down bool)              // the connection failed, or works again
}

// unobserved is an NRIObserver that ignores everything.
type unobserved struct{}

func (unobserved) NRIState(NRIState)                {}
func (unobserved) Hooked(HookResult, time.Duration) {}
func (unobserved) Outage(string, bool)              {}

// NRI is a plugin of the node's container runtime. The runtime calls it before the first process of each pod starts. The plugin
// then enforces the pod's rules, or refuses the pod. The protocol is that of github.com/containerd/nri.
type NRI struct {
	config NRIConfig
	log    logr.Logger
	outage *outage.Outage
	worked bool // a runtime has accepted the plugin before

	connected atomic.Bool // a runtime asks for the plugin, or has asked before

	// registerLimit is a field for tests.
	registerLimit time.Duration

	// hooks is waited for at the end of the agent, so that the runtime gets its answers.
	hooks sync.WaitGroup // running hooks, and hooks whose answer may still be on its way
}

// NewNRI returns a plugin that does nothing until Run. The context carries the logger.
func NewNRI(ctx context.Context, config NRIConfig) *NRI {
	if config.Observer == nil {
		config.Observer = unobserved{}
	}
	n := &NRI{config: config, log: logr.FromContextOrDiscard(ctx), registerLimit: registerLimit}
	// A library of the NRI library logs the end of a connection by logrus, in another format. The outage logs it too.
	logrus.SetOutput(io.Discard)
	n.outage = outage.New(n.log, "Being a plugin of the container runtime (NRI)",
		func(down bool) { config.Observer.Outage(NRISourceName, down) })
	return n
}

// Run registers with the runtime, and again when the connection is lost, until the context ends. All inputs, the sandboxes among
// them, must be in sync before: Enforce would apply incomplete rules otherwise.
func (n *NRI) Run(ctx context.Context) {
	if n.config.Socket == NRINone {
		n.config.Observer.NRIState(NRIOff)
		return
	}
	// The pause doubles with each failure, and starts anew after a connection that worked.
	pause, logged := pollInterval, false
	for ctx.Err() == nil {
		err := n.connect(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil: // the plugin was accepted, and the connection ended later
			pause = pollInterval
			n.config.Observer.NRIState(NRIRefused)
			n.outage.Failed(errHungUp)
		case n.isOptional() && (errors.Is(err, errNoNRI) || errors.Is(err, unix.ECONNREFUSED)): // no socket, or a stale socket
			n.config.Observer.NRIState(NRIAbsent)
			if !logged {
				logged = true
				n.log.Info("NRI unavailable: pods start before their rules are in force, and get them a moment later", "cause", err.Error())
			}
			sleepOrDone(ctx, socketPoll)
			continue
		default:
			n.config.Observer.NRIState(NRIRefused)
			n.outage.Failed(err)
		}
		sleepOrDone(ctx, pause)
		pause = min(2*pause, outageInterval)
	}
}

// isOptional reports whether a missing NRI is no failure: the user did not require it, and it never worked.
func (n *NRI) isOptional() bool { return n.config.Socket == NRIAuto && !n.worked }

// IsAwaited reports whether the user requires NRI, by the path of its socket, and no runtime has connected yet.
func (n *NRI) IsAwaited() bool {
	return n.config.Socket != NRIAuto && n.config.Socket != NRINone && !n.connected.Load()
}

// sleepOrDone returns after the duration, or when the context ends.
func sleepOrDone(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// find returns the path of the socket in this process's file system.
func (n *NRI) find() (string, error) {
	paths := wellKnownNRISockets
	if n.config.Socket != NRIAuto {
		paths = []string{strings.TrimPrefix(n.config.Socket, "unix://")}
	}
	if socket := findSocket(n.config.HostPrefix, paths); socket != "" {
		return socket, nil
	}
	return "", fmt.Errorf("%w at %s", errNoNRI, strings.Join(paths, ", "))
}

// connect registers with the runtime, and serves until the connection or the context ends. It returns an error if the runtime did
// not accept the plugin.
func (n *NRI) connect(ctx context.Context) error {
	socket, err := n.find()
	if err != nil {
		return err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	// Each connection has a plugin of its own, because a stub cannot be used twice.
	p := &plugin{NRI: n, log: n.log, accepted: make(chan struct{}), lost: make(chan struct{})}
	s, err := stub.New(p, stub.WithPluginName(pluginName), stub.WithPluginIdx(pluginIndex), stub.WithConnection(conn),
		stub.WithOnClose(sync.OnceFunc(func() { close(p.lost) })), stub.WithLogger(nriLogger{n.log.V(3)}),
		// Without an answer in time, the runtime refuses the pod. Older runtimes ignore this policy.
		stub.WithFailurePolicy(&api.FailurePolicy{FailRequest: true, KeepConnected: true}))
	if err != nil {
		conn.Close() //nolint:errcheck // the connection was not used
		return fmt.Errorf("plugin of the container runtime: %w", err)
	}
	p.stub = s
	if err := p.start(ctx, conn); err != nil {
		return fmt.Errorf("register at %s: %w", socket, err)
	}
	return p.serve(ctx)
}

// nriLogger writes the messages of the NRI library to the log.
type nriLogger struct{ log logr.Logger }

// Debugf implements the logger of the NRI library.
func (l nriLogger) Debugf(_ context.Context, format string, args ...any) {
	l.log.V(1).Info("NRI: " + fmt.Sprintf(format, args...))
}

// Infof implements the logger of the NRI library.
func (l nriLogger) Infof(_ context.Context, format string, args ...any) {
	l.log.Info("NRI: " + fmt.Sprintf(format, args...))
}

// Warnf implements the logger of the NRI library.
func (l nriLogger) Warnf(_ context.Context, format string, args ...any) {
	l.log.Info("NRI: " + fmt.Sprintf(format, args...))
}

// Errorf implements the logger of the NRI library. An error that ends the connection is logged as an outage too.
func (l nriLogger) Errorf(_ context.Context, format string, args ...any) {
	l.log.Info("NRI: " + fmt.Sprintf(format, args...))
}
