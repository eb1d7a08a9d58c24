package agent

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nflog"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/budget"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/drops"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/reconciler"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/tracing"
)

// Budgets of log lines about reported packets, see package budget. Followers of the Hub get all packets.
const (
	podDrops       = 50
	namespaceDrops = 200
	dropInterval   = time.Second
)

// firstDropRetry is the pause before the second try to receive the packets of a pod, and dropRetry before each later try. A test
// shortens it.
const firstDropRetry = 50 * time.Millisecond

var dropRetry = 10 * time.Second

// dropLog receives the packets that tables report, logs them, and hands them to the Hub.
type dropLog struct {
	ctx      context.Context // ends all listeners; carries the logger
	state    *cache.Cache
	hub      drops.Hub
	budget   *budget.Budget
	failures atomic.Uint64 // failed tries to receive the packets of a pod

	mu      sync.Mutex
	ended   bool // no listener starts any more
	running sync.WaitGroup
}

// newDropLog returns a dropLog whose listeners end with the context.
func newDropLog(ctx context.Context, state *cache.Cache) *dropLog {
	return &dropLog{ctx: ctx, state: state, budget: budget.New(podDrops, namespaceDrops, dropInterval)}
}

// Run ends the followers when the context ends, and returns when all listeners have ended.
func (d *dropLog) Run(ctx context.Context) {
	d.hub.Run(ctx)
	d.mu.Lock()
	d.ended = true
	d.mu.Unlock()
	d.running.Wait()
}

// listen returns a function that opens tables like open, and receives the packets that they report.
func (d *dropLog) listen(open reconciler.OpenTable) reconciler.OpenTable {
	return func(pod, netns string) (reconciler.Table, error) {
		inner, err := open(pod, netns)
		if err != nil {
			return nil, err
		}
		return &reportedTable{Table: inner, log: d, pod: keyOf(pod), netns: netns}, nil
	}
}

// reportedTable is a reconciler.Table with a listener while the table reports packets. The listener's socket keeps the network
// namespace in existence, so it is closed with the table.
type reportedTable struct {
	reconciler.Table
	log    *dropLog
	pod    cache.Key
	netns  string
	chains []*engine.Chain    // of the last apply
	stop   context.CancelFunc // ends the listener; nil: there is none
}

// Apply implements reconciler.Table.
func (t *reportedTable) Apply(ctx context.Context, want engine.Tables) error {
	err := t.Table.Apply(ctx, want)
	// The rules that report are in chains, so a change of members cannot change the answer.
	if chains := want[engine.Inet].Chains; err == nil && !slices.Equal(chains, t.chains) {
		t.chains = chains
		t.follow(cache.Reports(&want))
	}
	return err
}

// Close implements reconciler.Table.
func (t *reportedTable) Close() error {
	t.follow(false)
	return t.Table.Close()
}

// follow starts or ends the listener.
func (t *reportedTable) follow(reports bool) {
	switch {
	case reports && t.stop == nil:
		t.stop = t.log.start(t.pod, t.netns)
	case !reports && t.stop != nil:
		t.stop()
		t.stop = nil
	}
}

// start starts a listener for a pod, and returns a function that ends it.
func (d *dropLog) start(pod cache.Key, netns string) context.CancelFunc {
	d.mu.Lock()
	defer d.mu.Unlock()
	ctx, stop := context.WithCancel(d.ctx)
	if !d.ended {
		d.running.Go(func() { d.receive(ctx, pod, netns) })
	}
	return stop
}

// receive takes the packets of a pod until the context ends. Another process in the pod may have the group of the packets; that
// process then gets them, and the agent tries again.
func (d *dropLog) receive(ctx context.Context, pod cache.Key, netns string) {
	log := logr.FromContextOrDiscard(d.ctx).WithValues("pod", pod.String())
	for tries := 0; ctx.Err() == nil; tries++ {
		listener, err := nflog.Open(netns, cache.DropGroup)
		if err == nil {
			tries = 0
			err = listener.Run(ctx, func(p nflog.Packet) { d.take(log, pod, p) })
		}
		if err == nil || reconciler.IsGone(err) { // the path is gone with the pod
			return
		}
		// An earlier listener of the pod may be about to end, so the second try comes soon.
		pause := dropRetry
		if tries == 0 {
			pause = firstDropRetry
		}
		d.failures.Add(1)
		if tries == 1 && d.budget.Allow(pod.String(), pod.Namespace) {
			log.Error(err, "The dropped packets of the pod cannot be received, trying again", "busy", errors.Is(err, nflog.ErrBusy))
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// take logs and publishes a packet.
func (d *dropLog) take(log logr.Logger, pod cache.Key, p nflog.Packet) {
	id, ok := d.state.LocalPod(pod)
	if !ok {
		return
	}
	// A process in the pod can send packets to the group too, so the prefix may be anything.
	report, ok := d.state.ReportOf(id, p.Prefix)
	if !ok {
		return
	}
	drop := drops.Drop{
		Time: p.Time, Namespace: pod.Namespace, Pod: pod.Name, Direction: report.Direction.String(), Interface: report.Interface,
		Packet: tracing.NewPacket(p.Headers), Verdict: drops.Dropped, MorePolicies: report.More,
	}
	message := "Packet dropped"
	if report.Audited {
		drop.Verdict, message = drops.Audited, "Packet passed in audit mode; enforced, it would be dropped"
	}
	for _, policy := range report.Policies {
		drop.Policies = append(drop.Policies, policy.String())
	}
	d.hub.Publish(drop)
	if d.budget.Allow(pod.String(), pod.Namespace) {
		log.Info(message, "packet", drop.Packet.String(), "direction", drop.Direction, "interface", drop.Interface,
			"policies", drop.PolicyText())
	}
}
