package reconciler

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/budget"
)

// The runtime asks about a single pod at a time, so each pod that starts waits for the tables of all pods in front of
// it.
const (
	// smallStart is the kernel time below which tables cost no budget: the rest of the hook takes as long.
	smallStart = 2 * time.Millisecond

	// The kernel time of larger tables that pods may start with, in milliseconds at once, and the time after which a namespace
	// may use another millisecond. The node gets ten of them in this time (see package budget). So the runtime spends less than
	// half of its time on large tables, whoever starts pods.
	namespaceStarts = 50
	nodeStarts      = 150
	startsInterval  = 20 * time.Millisecond

	// A closed pod gets its tables when no other pod has started for crowdPause, and at the latest after longestClosed:
	// until then the cores are for the pods that start. The pod loses little, since the runtime takes some time until
	// the first container runs.
	crowdPause    = 100 * time.Millisecond
	longestClosed = 2 * time.Second
)

// starts decides which pods start closed: with small tables that isolate them and allow nearly nothing. A worker
// applies their own tables a moment later, in the turn of their namespace. So many pods with large tables that start
// together delay no other pod.
type starts struct {
	time   *budget.Budget
	closed atomic.Uint64 // pods that started closed
	last   atomic.Int64  // time of the last start, in nanoseconds since 1970
}

func newStarts() *starts {
	return &starts{time: budget.New(namespaceStarts, nodeStarts, startsInterval)}
}

// tables returns the tables that a pod starts with, and whether it starts closed. The time is an estimate of the kernel
// time.
func (s *starts) tables(target *cache.Target) (first engine.Tables, closed bool) {
	took := target.Tables.ApplyTime()
	// The "object" of the budget is the namespace, and the "namespace" is the node.
	if took <= smallStart || s.time.Take(target.Pod.Namespace, "", float64(took)/float64(time.Millisecond)) {
		return target.Tables, false
	}
	// If Lockdown finds no smaller tables, closed is false, and the caller applies the target's own tables.
	return target.Tables.Lockdown()
}

// isCrowd reports whether a pod has started within crowdPause.
func (s *starts) isCrowd() bool { return time.Now().UnixNano()-s.last.Load() < int64(crowdPause) }

// startClosed isolates a pod that starts, and leaves its own tables to a worker, which it queues.
func (r *Reconciler) startClosed(ctx context.Context, log logr.Logger, e *enforced, target cache.Target, closed engine.Tables) error {
	target.Tables = closed
	if err := r.bring(ctx, log, e, target); err != nil {
		return err
	}
	r.starts.closed.Add(1)
	if r.mayLog(target.Pod) {
		log.Info("Pod starts closed: large tables of pods that start together would delay other pods")
	}
	e.closed = time.Now()
	r.postpone(target.Pod)
	return nil
}

// staysClosed reports whether a pod started closed and its own tables must wait. Its small tables are checked meanwhile
// like the tables of any pod, since root in the pod may flush them. It returns false for a pod that did not start
// closed.
func (r *Reconciler) staysClosed(e *enforced) bool {
	if r.starts.isCrowd() && time.Since(e.closed) < longestClosed {
		return true
	}
	e.closed = time.Time{}
	return false
}

// postpone queues a closed pod again, as if its objects had changed: it is not settled before it has its own tables.
func (r *Reconciler) postpone(pod cache.PodID) {
	r.mu.Lock()
	r.outstanding[pod]++
	r.mu.Unlock()
	r.queue.addAfter(pod, crowdPause)
}
