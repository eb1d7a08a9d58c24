package command

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/conformance"
)

const conformanceNode = "node-1"

// judged is the agent as it runs on a node, but for where the objects and the sandboxes come from.
type judged struct {
	state      *cache.Cache
	tracker    *conformance.Tracker
	reconciler *reconciler
	synced     atomic.Bool
	stop       context.CancelFunc
	running    sync.WaitGroup
}

// judgedAgents starts agents that write to the log. What they know of objects comes through what wrap returns.
func judgedAgents(log logr.Logger, dir string, wrap func(informers.Sink) informers.Sink) conformance.StartAgent {
	return func(source informers.Source, sandboxes []conformance.Sandbox, flags conformance.Flags) (conformance.Agent, error) {
		features, err := engine.Probe()
		if err != nil {
			return nil, err
		}
		options, err := optionsOf(flags, dir)
		if err != nil {
			return nil, err
		}
		a := &judged{state: cache.New(options)}
		a.reconciler = newReconciler(a.state, openEngine(features))
		a.tracker = conformance.NewTracker(wrap(a.state), a.reconciler.Notify)
		for _, s := range sandboxes {
			a.state.SetSandbox(s.UID, cache.Sandbox{ID: s.ID, NetNS: s.NetNS})
		}
		ctx, stop := context.WithCancel(logr.NewContext(context.Background(), log))
		a.stop = stop
		in, err := informers.New(ctx, informers.Config{
			Source: source, Sink: a.tracker, Node: conformanceNode, Notify: a.tracker.Notify,
		})
		if err != nil {
			stop()
			return nil, err
		}
		p := &pipeline{informers: in, reconciler: a.reconciler, sandboxes: a}
		a.running.Go(func() { p.run(ctx) })
		return a, nil
	}
}

// optionsOf reads flags as the agent does.
func optionsOf(f conformance.Flags, dir string) (cache.Options, error) {
	var o tableOptions
	set := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	o.addFlags(set)
	args, err := f.Args(dir)
	if err == nil {
		err = set.Parse(args)
	}
	if err != nil {
		return cache.Options{}, err
	}
	return o.load(conformanceNode)
}

// Explain says what an explanation says.
func (a *judged) Explain(egress bool, p conformance.Packet) (allowed bool, why string, err error) {
	self, remote, q := p.To, p.From, cache.Query{Direction: cache.Ingress, Port: p.Port, Protocol: uint8(p.Proto)}
	if egress {
		self, remote, q.Direction = p.From, p.To, cache.Egress
	}
	q.Pod, q.Interface, q.Local, q.Remote = self.Pod, self.Iface, self.Addr, remote.Addr
	if p.Proto == conformance.ICMP {
		q.ICMPType = 8 // echo request
		if remote.Addr.Is6() {
			q.Protocol, q.ICMPType = unix.IPPROTO_ICMPV6, 128
		}
	}
	e, err := a.state.Explain(q)
	if errors.Is(err, cache.ErrNoPod) || errors.Is(err, cache.ErrNoInterface) {
		return true, err.Error(), nil // no policy can be about it
	}
	if err != nil {
		return false, "", err
	}
	return e.Interfaces[0].Verdict == cache.Allowed, e.Interfaces[0].DecidedBy, nil
}

// Run says that the sandboxes are known.
func (a *judged) Run(context.Context) {
	a.synced.Store(true)
	a.reconciler.Notify()
}

// HasSynced says whether Run has.
func (a *judged) HasSynced() bool { return a.synced.Load() }

// SetSandbox says where a pod runs.
func (a *judged) SetSandbox(s conformance.Sandbox) {
	a.state.SetSandbox(s.UID, cache.Sandbox{ID: s.ID, NetNS: s.NetNS})
	a.reconciler.Notify()
}

// DeleteSandbox says that a pod runs nowhere.
func (a *judged) DeleteSandbox(uid types.UID) {
	a.state.DeleteSandbox(uid)
	a.reconciler.Notify()
}

// Settled says whether all work is done.
func (a *judged) Settled(versions map[conformance.Ref]string) bool {
	return a.synced.Load() && a.tracker.Has(versions) && a.reconciler.Settled()
}

// Stop ends the agent.
func (a *judged) Stop() {
	a.stop()
	a.running.Wait()
}

// recorder keeps the lines of the agent's log that tell of errors.
type recorder struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *recorder) logger() logr.Logger {
	return funcr.New(func(_, args string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.buf.WriteString(args + "\n")
	}, funcr.Options{Verbosity: 1})
}

// tail returns the last lines, and forgets all.
func (r *recorder) tail(lines int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := bytes.SplitAfter(slices.Clone(r.buf.Bytes()), []byte("\n"))
	r.buf.Reset()
	return string(bytes.Join(all[max(0, len(all)-lines):], nil))
}
