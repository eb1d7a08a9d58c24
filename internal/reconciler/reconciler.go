package reconciler

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/budget"
)

const (
	firstRetry    = 50 * time.Millisecond // pause before the next try for a pod that failed; doubles
	lastRetry     = 10 * time.Second
	auditInterval = 500 * time.Millisecond // between looks at whether somebody else changed a table

	// More workers than cores: a pod whose work takes long inside the kernel occupies a worker, not the node.
	minimumWorkers = 16
	workersPerCore = 4
)

// Log lines at verbosity 0, of a pod and of all pods of a namespace, see package budget.
const (
	podLines       = 20
	namespaceLines = 200
	lineInterval   = 3 * time.Second
)

// Targets is the source of the wanted tables. *cache.Cache implements it.
type Targets interface {
	TakeDirty() []cache.PodID
	Plan(cache.PodID) (cache.Target, bool)
	Closed(pod cache.PodID, limit string) engine.Tables // tables that isolate the pod and allow nothing, for want of memory
	SetBridged(cache.PodID)                             // a name in the target's BridgePorts is a port of a bridge
	IsSelected(cache.PodID) (selected, known bool)
}

// Table is the tables of a network namespace. *engine.Namespace implements it. Its methods are never called at the same time.
type Table interface {
	Apply(ctx context.Context, want engine.Tables) error
	Changed(ctx context.Context) (bool, error)
	Check(ctx context.Context) (engine.Finding, error)
	HasBridgePort(names ...string) (bool, error) // whether any of the names is the name of a bridge's port
	SeedFailure() error                          // why connection tracking does not know all connections, or nil
	Close() error
}

// OpenTable opens the tables of a pod in the network namespace at the path.
type OpenTable func(pod, netns string) (Table, error)

// OpenNamespace opens namespaces that own their tables where the kernel can do that.
func OpenNamespace(f engine.Features) OpenTable {
	return func(pod, netns string) (Table, error) {
		n, err := engine.OpenNamespace(pod, netns, engine.Options{Own: f.Owner})
		if err != nil {
			return nil, err
		}
		return n, nil
	}
}

// Reconciler carries targets into the kernel. It owns the open tables.
type Reconciler struct {
	targets  Targets
	open     OpenTable
	observer Observer
	queue    *queue
	workers  int
	lines    *budget.Budget
	memory   *memory
	flight   *flight
	starts   *starts
	locks    podLocks // the holder of a pod's lock works on the pod

	mu          sync.Mutex
	pods        map[cache.PodID]*enforced
	outstanding map[cache.PodID]int      // times queued since the pod was last as it should be
	retries     map[cache.PodID]int      // failures since then
	audited     map[cache.PodID]struct{} // pods whose table is open and was last as it should be
	ended       bool                     // Run has ended: nothing is opened any more
}

// New returns a Reconciler that does nothing until Run. The observer may be nil.
func New(t Targets, open OpenTable, memory Budget, observer Observer) *Reconciler {
	if observer == nil {
		observer = Unobserved{}
	}
	cores := runtime.GOMAXPROCS(0)
	return &Reconciler{
		targets:     t,
		open:        open,
		observer:    observer,
		queue:       newQueue(max(2, cores)),
		workers:     max(minimumWorkers, workersPerCore*cores),
		lines:       budget.New(podLines, namespaceLines, lineInterval),
		memory:      newMemory(memory),
		flight:      newFlight(InFlightMemory),
		starts:      newStarts(),
		pods:        map[cache.PodID]*enforced{},
		outstanding: map[cache.PodID]int{},
		retries:     map[cache.PodID]int{},
		audited:     map[cache.PodID]struct{}{},
	}
}

// Notify queues the pods whose tables may have changed. It does not block, and may be called before Run.
func (r *Reconciler) Notify() {
	r.mu.Lock() // before the pods are taken, so that Settled does not miss them
	pods := r.targets.TakeDirty()
	for _, pod := range pods {
		r.outstanding[pod]++
	}
	r.mu.Unlock()
	r.observer.Queued(pods)
	for _, pod := range pods {
		r.queue.add(pod)
	}
}

// Settled reports whether every pod that was queued is as it should be.
func (r *Reconciler) Settled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.outstanding) == 0
}

// Stats counts for metrics.
type Stats struct {
	Throttled       int64  // pods that wait since they used more than their share of the workers
	ThrottledTotal  uint64 // times that a pod had to wait for its share
	SuppressedLines uint64 // log lines over budget
	Memory          int64  // kernel memory of all tables, an estimate, bytes
	Refused         int64  // pods whose table was too large for the budget
	ClosedStarts    uint64 // pods that started closed, to let the next pod start sooner
}

// Stats returns the counts now. It takes no lock.
func (r *Reconciler) Stats() Stats {
	return Stats{
		Throttled: r.queue.throttled.Load(), ThrottledTotal: r.queue.throttledTotal.Load(), SuppressedLines: r.lines.Refused(),
		Memory: r.memory.bytes.Load(), Refused: r.memory.refusals.Load(), ClosedStarts: r.starts.closed.Load(),
	}
}

// Stalled returns how long a pod has waited for a worker, apart from pods whose own namespace occupies its workers.
func (r *Reconciler) Stalled() time.Duration { return r.queue.stalled() }

// Run works until the context ends, lets the batches under way finish, and closes the tables, which stay in force.
func (r *Reconciler) Run(ctx context.Context) {
	defer context.AfterFunc(ctx, r.queue.close)()
	var workers sync.WaitGroup
	for range r.workers {
		workers.Go(func() {
			for r.next(ctx) {
			}
		})
	}
	workers.Go(func() { r.audit(ctx) })
	workers.Wait()
	r.mu.Lock()
	r.ended = true
	pods := slices.Collect(maps.Keys(r.pods))
	r.mu.Unlock()
	for _, pod := range pods {
		unlock := r.locks.lock(pod)
		r.enforced(pod).close(logr.FromContextOrDiscard(ctx).WithValues("pod", pod.String()))
		unlock()
	}
}

// audit asks the kernel from time to time whether somebody else changed the namespace of a pod, and queues the pods where
// that is so. It works beside the queue, and a pod that is worked on is passed over: an idle node pays one question for
// each pod, and an event waits for none of them.
func (r *Reconciler) audit(ctx context.Context) {
	ticker := time.NewTicker(auditInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		r.mu.Lock()
		pods := slices.Collect(maps.Keys(r.audited)) // a pod that failed waits for its own next try
		r.mu.Unlock()
		for _, pod := range pods {
			if ctx.Err() == nil && r.isChanged(ctx, pod) {
				r.queue.add(pod)
			}
		}
	}
}

// isChanged reports whether the table of a pod needs a check, or cannot be asked about.
func (r *Reconciler) isChanged(ctx context.Context, pod cache.PodID) bool {
	unlock, ok := r.locks.tryLock(pod)
	if !ok {
		return false
	}
	defer unlock()
	r.mu.Lock()
	e := r.pods[pod]
	r.mu.Unlock()
	if e == nil || e.table == nil {
		return false
	}
	changed, err := e.table.Changed(ctx)
	return changed || err != nil || r.bridgeAppeared(ctx, pod, e)
}

// next takes a pod from the queue. It returns false if the queue is closed.
func (r *Reconciler) next(ctx context.Context) bool {
	pod, ok := r.queue.get()
	if !ok {
		return false
	}
	unlock := r.locks.lock(pod)
	start := time.Now()
	if ctx.Err() == nil {
		if err := r.work(ctx, pod); err != nil {
			r.failed(ctx, pod, err)
		}
	}
	took := time.Since(start)
	unlock()
	r.queue.done(pod, took)
	return true
}

// work brings a pod to its target, once. A pod that starts may start closed, see starts.
func (r *Reconciler) work(ctx context.Context, pod cache.PodID) error {
	r.mu.Lock()
	queued := r.outstanding[pod]
	r.mu.Unlock()
	r.observer.Started(pod)
	// A batch that was sent is waited for: the content of the kernel is then known, also when the agent stops meanwhile.
	err := r.reconcile(context.WithoutCancel(ctx), pod)
	r.observer.Finished(pod, err)
	if err == nil {
		r.succeeded(pod, queued)
	}
	return err
}

// succeeded notes that a pod is as it should be, as of when it had been queued so many times.
func (r *Reconciler) succeeded(pod cache.PodID, queued int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.retries, pod)
	if r.outstanding[pod] == queued {
		delete(r.outstanding, pod)
	}
	if e := r.pods[pod]; e != nil && e.table != nil {
		r.audited[pod] = struct{}{}
	} else {
		delete(r.audited, pod)
	}
}

// failed queues a pod again, after a pause that grows with each failure.
func (r *Reconciler) failed(ctx context.Context, pod cache.PodID, err error) {
	r.mu.Lock()
	delete(r.audited, pod)
	tries := r.retries[pod]
	r.retries[pod]++
	r.mu.Unlock()
	r.queue.addAfter(pod, min(lastRetry, firstRetry<<min(tries, 20)))
	log := logr.FromContextOrDiscard(ctx).WithValues("pod", pod.String(), "try", tries+1)
	var errno unix.Errno
	if errors.As(err, &errno) {
		log = log.WithValues("errno", unix.ErrnoName(errno))
	}
	// A pod's network namespace goes before the runtime, and then the API server, tell.
	if IsGone(err) && tries < 3 {
		log.V(1).Info("The network namespace of the pod is gone", "cause", err.Error())
		return
	}
	if r.mayLog(pod) {
		log.Error(err, "Applying policies failed, retrying")
	}
}

// mayLog reports whether the budget of the pod and its namespace allows another line.
func (r *Reconciler) mayLog(pod cache.PodID) bool {
	return r.lines.Allow(pod.String(), pod.Namespace)
}

// IsGone reports whether the error belongs to a pod whose network namespace does not exist any more. The kernel says
// ENOENT as well about a message that names a missing object.
func IsGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) && !errors.As(err, new(*nfnl.MessageError))
}

// reconcile brings a pod to its target, or closes it.
func (r *Reconciler) reconcile(ctx context.Context, pod cache.PodID) error {
	log := logr.FromContextOrDiscard(ctx).WithValues("pod", pod.String())
	target, ok := r.targets.Plan(pod)
	e := r.enforced(pod)
	if !ok || target.Sandbox.ID == "" {
		e.close(log)
		r.forget(pod)
		return nil
	}
	if e.sandbox != target.Sandbox {
		e.close(log)
		*e = enforced{sandbox: target.Sandbox}
	}
	if err := r.searchBridge(e, &target); err != nil {
		e.close(log)
		return err
	}
	r.admit(&target)
	if r.staysClosed(e) {
		target.Tables = e.tables
		r.postpone(pod)
	}
	if target.Sandbox.Hooked && !e.applied && e.tables.IsEmpty() {
		if tables, closed := r.starts.tables(&target); closed {
			return r.startClosed(ctx, log, e, target, tables)
		}
	}
	defer r.flight.enter(max(target.Tables.Memory(), e.tables.Memory()))()
	if !e.applied || !sameTables(&e.tables, &target.Tables) {
		return r.apply(ctx, log, e, target)
	}
	if e.table == nil {
		return nil
	}
	found, err := e.table.Check(ctx)
	if err != nil {
		log.V(1).Info("The table of the pod cannot be checked, applying it again", "cause", err.Error())
		return r.apply(ctx, log, e, target)
	}
	if (found != e.found || found == engine.Repaired || found == engine.Reseeded) && r.mayLog(pod) {
		logFinding(log, found)
	}
	e.found = found
	r.logSeedFailure(log, e, pod)
	return nil
}

// admit books the memory of the target's table. A table that does not fit the budget becomes one that isolates the pod and
// allows nothing.
func (r *Reconciler) admit(target *cache.Target) {
	exceeds, again := r.memory.admit(target.Pod, target.Tables.Memory())
	if exceeds != "" {
		target.Tables = r.targets.Closed(target.Pod, exceeds)
		again = append(again, r.memory.book(target.Pod, target.Tables.Memory())...)
	}
	for _, pod := range again {
		if pod != target.Pod {
			r.queue.addNow(pod)
		}
	}
}

func (r *Reconciler) forget(pod cache.PodID) {
	r.mu.Lock()
	delete(r.pods, pod)
	r.mu.Unlock()
	r.queue.forget(pod)
	for _, other := range r.memory.forget(pod) {
		r.queue.add(other)
	}
}
