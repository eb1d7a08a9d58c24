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

// The runtime asks about one pod at a time, so each pod that starts waits for the tables of all pods in front of it.
const (
	// smallStart is a kernel time that no pod has to save: the rest of the hook takes as long.
	smallStart = 2 * time.Millisecond

	// The kernel time of larger tables that pods may start with, in milliseconds at once, and the time after which a namespace
	// may use another millisecond. The node gets ten of them in this time (see package budget). So the runtime spends less than
	// half of its time on large tables, whoever starts pods.
	namespaceStarts = 50
	nodeStarts      = 150
	startsInterval  = 20 * time.Millisecond

	// A closed pod gets its tables when no further pod has started for a while, and at the latest after longestClosed: the cores are
	// for the other pods of the crowd. The runtime, too, takes some time until the first container runs.
	crowdPause    = 100 * time.Millisecond
	longestClosed = 2 * time.Second
)

// starts decides which pods start closed: with small tables that isolate them and allow nearly nothing. A worker applies their
// own tables a moment later, in the turn of their namespace. A crowd of pods with large tables then delays no other pod.
type starts struct {
	time   *budget.Budget
	closed atomic.Uint64 // pods that started closed
	last   atomic.Int64  // time of the last start, in nanoseconds since 1970
}

func newStarts() *starts {
	return &starts{time: budget.New(namespaceStarts, nodeStarts, startsInterval)}
}

// tables returns the tables that a pod starts with, and whether it starts closed.
func (s *starts) tables(target *cache.Target) (first engine.Tables, closed bool) {
	took := target.Tables.ApplyTime()
	if took <= smallStart || s.time.Take(target.Pod.Namespace, "", float64(took)/float64(time.Millisecond)) {
		return target.Tables, false
	}
	return target.Tables.Lockdown()
}

// isCrowd reports whether a pod has started just now.
func (s *starts) isCrowd() bool { return time.Now().UnixNano()-s.last.Load() < int64(crowdPause) }

// startClosed isolates a pod that starts, and leaves its own tables to a worker.
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

// staysClosed reports whether a pod started closed and its own tables must wait. Its small tables are checked like any others
// meanwhile: root in the pod may flush them.
func (r *Reconciler) staysClosed(e *enforced) bool {
	if r.starts.isCrowd() && time.Since(e.closed) < longestClosed {
		return true
	}
	e.closed = time.Time{}
	return false
}

// postpone queues a closed pod again.
func (r *Reconciler) postpone(pod cache.PodID) {
	r.mu.Lock()
	r.outstanding[pod]++
	r.mu.Unlock()
	r.queue.addAfter(pod, crowdPause)
}
