package informers

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
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// Values of NRIConfig.Socket that are no path.
const (
	NRIAuto = "auto" // the usual socket, where there is one
	NRINone = "none"
)

const (
	// nriSource is how an outage of NRI is called.
	nriSource = "NRI"
	// nriIndex is among the last of the plugins: what others add to a pod's network is there when this one is asked.
	nriIndex = "90"
	// nriLookout is the pause between looks for the usual socket while there is none.
	nriLookout = 10 * time.Second
	// nriPatience is how long a runtime may take to accept a plugin.
	nriPatience = 10 * time.Second
)

// wellKnownNRISockets are where containerd and CRI-O listen. /var/run is a link to /run on most hosts.
var wellKnownNRISockets = []string{"/run/nri/nri.sock", "/var/run/nri/nri.sock"}

// errNoNRI says that no socket was found.
var errNoNRI = errors.New("no NRI socket")

// errRejected is a runtime that connects, and then neither asks for anything nor hangs up.
var errRejected = errors.New("the runtime does not take the plugin")

// NRIConfig is what NRI is made of. All but Events, Outage and Hooked are needed.
type NRIConfig struct {
	Socket     string // a path on the host, NRIAuto or NRINone
	HostPrefix string // where the host's root directory is
	Node       string // that the pods are on
	Sandboxes  *Sandboxes
	Announce   func(pod *corev1.Pod) // takes a pod that the API server may not have told of yet

	// Enforce brings a pod's rules into the kernel and returns when they are in force, or why not. It says whether there
	// are any, and must return at once when there are none.
	Enforce func(ctx context.Context, pod cache.Key, uid types.UID) (enforced bool, err error)

	Events EventSink
	Outage func(source string, down bool)              // told when the runtime is lost, and when it works again
	Hooked func(result HookResult, took time.Duration) // told of each pod that starts
}

// NRI is a plugin of the node's container runtime: it is asked before the first process of each pod starts, and then
// has the pod's rules in force, or refuses the pod.
type NRI struct {
	config NRIConfig
	log    logr.Logger
	outage *outage
	worked bool // a runtime took the plugin once

	patience time.Duration // nriPatience

	busy sync.RWMutex // held for reading while a pod is worked on
}

// NewNRI makes a plugin that does nothing until Run. The context carries the logger.
func NewNRI(ctx context.Context, config NRIConfig) *NRI {
	n := &NRI{config: config, log: logr.FromContextOrDiscard(ctx), patience: nriPatience}
	// What the library's own libraries say of a connection that ends is no part of this log, nor in its form.
	logrus.SetOutput(io.Discard)
	n.outage = newOutage(n.log, "Being a plugin of the container runtime (NRI)")
	if tell := config.Outage; tell != nil {
		n.outage.told = func(down bool) { tell(nriSource, down) }
	}
	return n
}

// Run registers with the runtime, again whenever that is lost, until the context ends. The sandboxes must be in sync
// before, and all that Enforce looks at.
func (n *NRI) Run(ctx context.Context) {
	if n.config.Socket == NRINone {
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
			n.outage.failed(errHungUp)
		case n.isOptional():
			if !told {
				told = true
				n.log.Info("No NRI: pods start before their rules are in force, and get them a moment later", "cause", err.Error())
			}
			sleepOrDone(ctx, nriLookout)
			continue
		default:
			n.outage.failed(err)
		}
		sleepOrDone(ctx, pause)
		pause = min(2*pause, outageInterval)
	}
}

// isOptional says whether it may well be that the runtime has no NRI. A socket may be left from when it had.
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
	p := &nriPlugin{NRI: n, log: n.log, accepted: make(chan struct{}), lost: make(chan struct{})}
	s, err := stub.New(p, stub.WithPluginName(component), stub.WithPluginIdx(nriIndex), stub.WithConnection(conn),
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
