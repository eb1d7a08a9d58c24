package command

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/explain"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/agent"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/reconciler"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/conformance"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

const conformanceNode = "node-1"

// judged is the agent as it runs on a node, except for the sources of objects and sandboxes.
type judged struct {
	state      *cache.Cache
	tracker    *conformance.Tracker
	reconciler *reconciler.Reconciler
	synced     atomic.Bool
	asked      bool // Settled has called Notify, and the objects are the same since then
	stop       context.CancelFunc
	running    sync.WaitGroup
}

// plant makes an agent faulty. Each function may be nil.
type plant struct {
	sink    func(informers.Sink) informers.Sink // changes the objects on their way to the agent
	options func(*cache.Options)
}

// judgedAgents starts agents that write to the log.
func judgedAgents(log logr.Logger, dir string, fault plant) conformance.StartAgent {
	return func(objects informers.Objects, sandboxes []conformance.Sandbox, flags oracle.Flags) (conformance.Agent, error) {
		features, err := engine.Probe()
		if err != nil {
			return nil, err
		}
		options, err := optionsOf(flags, dir)
		if err != nil {
			return nil, err
		}
		if fault.options != nil {
			fault.options(&options)
		}
		a := &judged{state: cache.New(options), tracker: conformance.NewTracker()}
		a.reconciler = reconciler.New(a.state, reconciler.OpenNamespace(features), reconciler.BudgetOf(a.state.Limits()), nil)
		for _, s := range sandboxes {
			a.state.SetSandbox(s.UID, cache.Sandbox{ID: s.ID, NetNS: s.NetNS})
		}
		ctx, stop := context.WithCancel(logr.NewContext(context.Background(), log))
		a.stop = stop
		sink := informers.Sink(a.state)
		if fault.sink != nil {
			sink = fault.sink(sink)
		}
		settings := informers.Settings{Node: conformanceNode, Limits: a.state.Limits()}
		in := informers.New(ctx, informers.Config{
			Source: informers.FromObjects(objects, settings), Sink: sink, Settings: settings,
			Notify: a.reconciler.Notify, Observer: a.tracker,
		})
		p := &agent.Pipeline{Informers: in, Reconciler: a.reconciler, Sandboxes: a}
		a.running.Go(func() { p.Run(ctx) })
		return a, nil
	}
}

// optionsOf parses flags like the agent.
func optionsOf(f oracle.Flags, dir string) (cache.Options, error) {
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

// Explain returns the prediction of an explanation.
func (a *judged) Explain(egress bool, p oracle.Packet) (allowed bool, why string, err error) {
	self, remote, q := p.To, p.From, explain.Query{Direction: engine.Ingress, Port: p.Port, Protocol: uint8(p.Proto)}
	if egress {
		self, remote, q.Direction = p.From, p.To, engine.Egress
	}
	q.Pod, q.Local, q.Remote = self.Pod, self.Addr, remote.Addr
	q.Interface, _, _ = strings.Cut(self.Iface, ".") // explain knows no VLAN devices
	if p.Proto == oracle.ICMP {
		q.ICMPType = 8 // echo request
		if remote.Addr.Is6() {
			q.Protocol, q.ICMPType = unix.IPPROTO_ICMPV6, 128
		}
	}
	e, err := explain.Explain(a.state, q)
	if errors.Is(err, explain.ErrNoPod) || errors.Is(err, explain.ErrNoInterface) {
		return true, err.Error(), nil // policies cannot apply to the pod
	}
	if err != nil {
		return false, "", err
	}
	return e.Interfaces[0].Verdict == explain.Allowed, e.Interfaces[0].DecidedBy, nil
}

// Run marks the sandboxes as synced: the player sets them.
func (a *judged) Run(context.Context) {
	a.synced.Store(true)
	a.reconciler.Notify()
}

// HasSynced reports whether Run was called.
func (a *judged) HasSynced() bool { return a.synced.Load() }

// SetSandbox sets the network namespace of a pod.
func (a *judged) SetSandbox(s conformance.Sandbox) {
	a.state.SetSandbox(s.UID, cache.Sandbox{ID: s.ID, NetNS: s.NetNS})
	a.reconciler.Notify()
}

// DeleteSandbox removes the sandbox of a pod.
func (a *judged) DeleteSandbox(uid types.UID) {
	a.state.DeleteSandbox(uid)
	a.reconciler.Notify()
}

// Settled reports whether the kernel has acknowledged all changes.
func (a *judged) Settled(versions map[oracle.Ref]string) bool {
	if !a.synced.Load() || !a.tracker.Has(versions) {
		a.asked = false
		return false
	}
	if !a.asked {
		a.asked = true
		a.reconciler.Notify() // queues changes of the cache that are not queued yet
	}
	// A Notify for each call would be the next thing to wait for.
	settled := a.reconciler.Settled()
	a.asked = !settled
	return settled
}

// Stop ends the agent.
func (a *judged) Stop() {
	a.stop()
	a.running.Wait()
}
