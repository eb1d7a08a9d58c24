package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
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

// Values of NRIConfig.Socket that are no path.
const (
	NRIAuto = "auto" // the well-known socket, where there is one
	NRINone = "none"
)

// NRISourceName is the name of NRI as an input.
const NRISourceName = "NRI"

const (
	pluginName    = "multi-networkpolicy-nftables"
	pluginIndex   = "90"             // among the last plugins: what others add to a pod's network is there by then
	socketPoll    = 10 * time.Second // between looks for the well-known socket while there is none
	registerLimit = 10 * time.Second // for a runtime to accept the plugin
	hookEnd       = 2 * time.Second  // for hooks under way when the agent stops
)

// NRIState is the state of the connection to the runtime's NRI.
type NRIState string

// The states. Pods start unprotected in all of them but NRIConnected.
const (
	NRIConnected NRIState = "connected" // the runtime asks before it starts a pod
	NRIRefused   NRIState = "refused"   // the runtime has NRI and does not take the plugin
	NRIAbsent    NRIState = "absent"    // the runtime has no NRI
	NRIOff       NRIState = "off"       // --nri-socket=none
)

// NRIStates lists the states.
var NRIStates = []NRIState{NRIConnected, NRIRefused, NRIAbsent, NRIOff}

// wellKnownNRISockets are where containerd and CRI-O listen. /var/run is a link to /run on most hosts.
var wellKnownNRISockets = []string{"/run/nri/nri.sock", "/var/run/nri/nri.sock"}

var (
	errNoNRI    = errors.New("no NRI socket")
	errRejected = errors.New("the runtime does not take the plugin")
	errHungUp   = errors.New("the runtime hung up")
)

// NRIConfig is what NRI is made of. All but Events and Observer are needed.
type NRIConfig struct {
	Socket     string // a path on the host, NRIAuto or NRINone
	HostPrefix string // where the host's root directory is
	Node       string // that the pods are on
	Sandboxes  *Sandboxes
	Settings   informers.Settings
	Announce   func(pod cache.Pod) // takes a pod that the API server may not have told of yet

	// Enforce brings a pod's rules into the kernel. It returns once they are in force, or why not, and reports whether
	// the pod has any. It must return at once for a pod without rules.
	Enforce func(ctx context.Context, pod cache.PodID) (enforced bool, err error)

	Events   informers.EventSink
	Observer NRIObserver
}

// NRIObserver hears of the pods that start. Its methods must not block.
type NRIObserver interface {
	NRIState(NRIState)
	Hooked(result HookResult, took time.Duration)
	Outage(source string, down bool)
}

// unobserved is an NRIObserver that ignores everything.
type unobserved struct{}

func (unobserved) NRIState(NRIState)                {}
func (unobserved) Hooked(HookResult, time.Duration) {}
func (unobserved) Outage(string, bool)              {}

// NRI is a plugin of the node's container runtime. The runtime asks it before the first process of each pod starts; it then
// has the pod's rules in force, or refuses the pod.
type NRI struct {
	config NRIConfig
	log    logr.Logger
	outage *outage.Outage
	worked bool // a runtime took the plugin once

	registerLimit time.Duration

	hooks sync.WaitGroup // under way
}

// NewNRI returns a plugin that does nothing until Run. The context carries the logger.
func NewNRI(ctx context.Context, config NRIConfig) *NRI {
	if config.Observer == nil {
		config.Observer = unobserved{}
	}
	n := &NRI{config: config, log: logr.FromContextOrDiscard(ctx), registerLimit: registerLimit}
	// The messages of the library's own libraries about a connection that ends are not in the form of this log.
	logrus.SetOutput(io.Discard)
	n.outage = outage.New(n.log, "Being a plugin of the container runtime (NRI)",
		func(down bool) { config.Observer.Outage(NRISourceName, down) })
	return n
}

// Run registers with the runtime, again whenever the connection is lost, until the context ends. Before it is called, the
// sandboxes must be in sync, and all that Enforce looks at.
func (n *NRI) Run(ctx context.Context) {
	if n.config.Socket == NRINone {
		n.config.Observer.NRIState(NRIOff)
		return
	}
	pause, told := pollInterval, false
	for ctx.Err() == nil {
		err := n.connect(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil: // it worked, and has ended
			pause = pollInterval
			n.config.Observer.NRIState(NRIRefused)
			n.outage.Failed(errHungUp)
		case n.isOptional() && (errors.Is(err, errNoNRI) || errors.Is(err, unix.ECONNREFUSED)): // or a socket that is left
			n.config.Observer.NRIState(NRIAbsent)
			if !told {
				told = true
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

// isOptional reports whether the runtime may well have no NRI.
func (n *NRI) isOptional() bool { return n.config.Socket == NRIAuto && !n.worked }

func sleepOrDone(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// find returns the path of the socket.
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

// connect registers, and serves until the connection or the context ends. It is an error when the runtime never took the
// plugin.
func (n *NRI) connect(ctx context.Context) error {
	socket, err := n.find()
	if err != nil {
		return err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	p := &plugin{NRI: n, log: n.log, accepted: make(chan struct{}), lost: make(chan struct{})}
	s, err := stub.New(p, stub.WithPluginName(pluginName), stub.WithPluginIdx(pluginIndex), stub.WithConnection(conn),
		stub.WithOnClose(sync.OnceFunc(func() { close(p.lost) })), stub.WithLogger(nriLogger{n.log.V(3)}),
		// A pod that this plugin does not answer for in time does not start. Older runtimes know no such thing.
		stub.WithFailurePolicy(&api.FailurePolicy{FailRequest: true, KeepConnected: true}))
	if err != nil {
		conn.Close() //nolint:errcheck // it was not used
		return fmt.Errorf("plugin of the container runtime: %w", err)
	}
	p.stub = s
	if err := p.start(ctx, conn); err != nil {
		return fmt.Errorf("register at %s: %w", socket, err)
	}
	return p.serve(ctx)
}

// nriLogger makes what the library says part of the log.
type nriLogger struct{ log logr.Logger }

// Debugf is the library's.
func (l nriLogger) Debugf(_ context.Context, format string, args ...any) {
	l.log.V(1).Info("NRI: " + fmt.Sprintf(format, args...))
}

// Infof is the library's.
func (l nriLogger) Infof(_ context.Context, format string, args ...any) {
	l.log.Info("NRI: " + fmt.Sprintf(format, args...))
}

// Warnf is the library's.
func (l nriLogger) Warnf(_ context.Context, format string, args ...any) {
	l.log.Info("NRI: " + fmt.Sprintf(format, args...))
}

// Errorf is the library's. What comes of it is logged as an outage.
func (l nriLogger) Errorf(_ context.Context, format string, args ...any) {
	l.log.Info("NRI: " + fmt.Sprintf(format, args...))
}
