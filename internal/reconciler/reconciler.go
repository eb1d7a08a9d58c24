package reconciler

import (
	"context"
	"errors"
	"hash/maphash"
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

// Pauses, and the number of workers.
const (
	firstRetry    = 50 * time.Millisecond // pause before the next try for a pod that failed; doubles
	lastRetry     = 10 * time.Second
	auditInterval = 500 * time.Millisecond // between questions whether another process changed a table
	ownedAudits   = 10                     // a table that no other process can change is asked about in one of so many intervals

	// More workers than cores: a pod with long work inside the kernel occupies a worker, and not the whole node.
	minimumWorkers = 16
	workersPerCore = 4
)

// Budgets of log lines at verbosity 0, for a pod and for all pods of a namespace, see package budget.
const (
	podLines       = 20
	namespaceLines = 200
	lineInterval   = 3 * time.Second
)

// Targets is the source of the wanted tables. *cache.Cache implements it. The methods are safe for concurrent use.
type Targets interface {
	// TakeDirty returns the pods whose tables may have changed since the last call.
	TakeDirty() []cache.PodID
	// Plan returns the tables that a pod should have now. It returns false if the pod is gone or has no target.
	Plan(cache.PodID) (cache.Target, bool)
	// Closed returns tables that isolate the pod and allow nothing, in place of tables that exceed a limit of memory.
	Closed(pod cache.PodID, limit string) engine.Tables
	// SetBridged notes that a name in the target's BridgePorts is a port of a bridge, and changes the target.
	SetBridged(cache.PodID)
	// IsSelected answers without a plan. known is false for a pod that the cache does not know.
	IsSelected(cache.PodID) (selected, known bool)
}

// Table is the tables of a network namespace. *engine.Namespace implements it. Its methods are never called at the same time.
type Table interface {
	Apply(ctx context.Context, want engine.Tables) error
	Changed(ctx context.Context) (bool, error)
	IsExposed() bool // whether Changed should be called often
	Check(ctx context.Context) (engine.Finding, error)
	HasBridgePort(names ...string) (bool, error) // whether any of the names is the name of a port of a bridge
	SeedFailure() error                          // why connection tracking does not know all connections; nil: it knows them
	Close() error
}

// OpenTable opens the tables of a pod in the network namespace at the path. pod is its name, for errors.
type OpenTable func(pod, netns string) (Table, error)

// OpenNamespace returns an OpenTable for real network namespaces. It owns the tables if the kernel can do that.
func OpenNamespace(f engine.Features) OpenTable {
	return func(pod, netns string) (Table, error) {
		n, err := engine.OpenNamespace(pod, netns, engine.Options{Own: f.Owner})
		if err != nil {
			return nil, err
		}
		return n, nil
	}
}

// Reconciler carries targets into the kernel. It owns the open tables. Notify may be called from any goroutine; Run is
// called once. EnforceNow may be called while Run runs.
type Reconciler struct {
	targets  Targets
	open     OpenTable
	observer Observer // never nil
	queue    *queue
	workers  int            // number of workers
	lines    *budget.Budget // budget of log lines
	memory   *memory
	flight   *flight
	starts   *starts
	locks    podLocks // the holder of a pod's lock works on the pod

	// mu guards the fields below. It is held for moments only, never during a call of Table but IsExposed, or of Targets but TakeDirty.
	mu sync.Mutex
	// pods has the pods with a target. An enforced in it belongs to the holder of the pod's lock, not to mu.
	pods        map[cache.PodID]*enforced
	outstanding map[cache.PodID]int  // times that the pod was queued since it was last up to date
	retries     map[cache.PodID]int  // failures since the pod was last up to date
	audited     map[cache.PodID]bool // pods whose tables are open and were last up to date, and whether the tables are exposed
	ended       bool                 // Run has ended: nothing is opened any more
	notice      notice
}

// New returns a Reconciler that does nothing until Run. The observer may be nil.
func New(t Targets, open OpenTable, memory Budget, observer Observer) *Reconciler {
	if observer == nil {
		observer = Unobserved{}
	}
	cores := runtime.GOMAXPROCS(0)
	return &Reconciler{
		targets:  t,
		open:     open,
		observer: observer,
		// A namespace may occupy as many workers as the node has cores: with four or more cores, a quarter of the
		// workers.
		queue:       newQueue(max(2, cores)),
		workers:     max(minimumWorkers, workersPerCore*cores),
		lines:       budget.New(podLines, namespaceLines, lineInterval),
		memory:      newMemory(memory),
		flight:      newFlight(InFlightMemory),
		starts:      newStarts(),
		pods:        map[cache.PodID]*enforced{},
		outstanding: map[cache.PodID]int{},
		retries:     map[cache.PodID]int{},
		audited:     map[cache.PodID]bool{},
		notice:      notice{wake: make(chan struct{}, 1)},
	}
}

// Settled reports whether every pod is up to date with the events before the last Notify. Tests and the demo wait for it. It queues
// pods that are not queued yet.
func (r *Reconciler) Settled() bool {
	r.queueDirty()
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.outstanding) == 0
}

// Stats has counts for metrics.
type Stats struct {
	Throttled       int64  // pods that wait because they used more than their share of the workers
	ThrottledTotal  uint64 // times that a pod had to wait for its share
	SuppressedLines uint64 // log lines over budget
	Memory          int64  // kernel memory of all tables, an estimate, bytes
	Refused         int64  // pods whose table was too large for the budget
	ClosedStarts    uint64 // pods that started closed, to let the next pod start sooner
}

// Stats returns the counts now. It takes no lock, so a scrape never waits for a worker.
func (r *Reconciler) Stats() Stats {
	return Stats{
		Throttled: r.queue.throttled.Load(), ThrottledTotal: r.queue.throttledTotal.Load(), SuppressedLines: r.lines.Refused(),
		Memory: r.memory.bytes.Load(), Refused: r.memory.refusals.Load(), ClosedStarts: r.starts.closed.Load(),
	}
}

// Stalled returns how long a pod has waited for a worker, apart from pods whose own namespace occupies its workers.
func (r *Reconciler) Stalled() time.Duration { return r.queue.stalled() }

// Run works until the context ends. It then lets the batches under way finish, and closes the sockets; the tables stay
// in force.
func (r *Reconciler) Run(ctx context.Context) {
	// The end of the context wakes the workers that wait in the queue.
	defer context.AfterFunc(ctx, r.queue.close)()
	var workers sync.WaitGroup
	r.mu.Lock()
	r.notice.isOpen = true
	r.mu.Unlock()
	workers.Go(func() { r.queueNotified(ctx) })
	for range r.workers {
		workers.Go(func() {
			for r.next(ctx) {
			}
		})
	}
	workers.Go(func() { r.audit(ctx) })
	workers.Wait()
	// From here on, enforceNow refuses to open tables: nobody would close them.
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

// audit asks the kernel at intervals whether another process changed the namespace of a pod, and queues these pods. It
// runs beside the queue, and passes over a pod that a worker has, so an event never waits for these questions. Pods whose tables are
// owned take turns.
func (r *Reconciler) audit(ctx context.Context) {
	ticker := time.NewTicker(auditInterval)
	defer ticker.Stop()
	for turn := 0; ; turn = (turn + 1) % ownedAudits {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		for _, pod := range r.due(turn) {
			if ctx.Err() == nil && r.isChanged(ctx, pod) {
				r.queue.add(pod)
			}
		}
	}
}

// due returns the pods that audit asks about in an interval: those with exposed tables, and those whose turn it is. A pod that failed is
// not among them: it waits for its own next try.
func (r *Reconciler) due(turn int) []cache.PodID {
	r.mu.Lock()
	defer r.mu.Unlock()
	var pods []cache.PodID
	for pod, exposed := range r.audited {
		if exposed || turnOf(pod) == turn {
			pods = append(pods, pod)
		}
	}
	return pods
}

// turnOf returns the interval in which audit asks about a pod whose tables are not exposed. It spreads pods evenly.
func turnOf(pod cache.PodID) int { return int(maphash.String(turnSeed, string(pod.UID)) % ownedAudits) }

var turnSeed = maphash.MakeSeed()

// isChanged reports whether the table of a pod needs a check: it has changed, or the kernel gives no answer about it,
// or a bridge has appeared in the pod.
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
	exposed := e.table.IsExposed()
	r.mu.Lock()
	if _, audited := r.audited[pod]; audited {
		r.audited[pod] = exposed
	}
	r.mu.Unlock()
	return changed || err != nil || r.bridgeAppeared(ctx, pod, e)
}

// next takes a pod from the queue and works on it. It returns false if the queue is closed.
func (r *Reconciler) next(ctx context.Context) bool {
	pod, ok := r.queue.get()
	if !ok {
		return false
	}
	unlock := r.locks.lock(pod)
	// The clock starts behind the lock: a wait for EnforceNow is not charged to the pod.
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

// work brings a pod to its target, once. The caller holds the lock of the pod. A pod that starts may start closed, see
// starts.
func (r *Reconciler) work(ctx context.Context, pod cache.PodID) error {
	// Read before the plan: a change that is queued after this moment may not be in the plan.
	r.mu.Lock()
	queued := r.outstanding[pod]
	r.mu.Unlock()
	r.observer.Started(pod)
	// A batch that was sent is awaited even if the agent stops: the content of the kernel is then known.
	err := r.reconcile(context.WithoutCancel(ctx), pod)
	r.observer.Finished(pod, err)
	if err == nil {
		r.succeeded(pod, queued)
	}
	return err
}

// succeeded notes that a pod is up to date with the changes for which it had been queued so many times. A pod that was
// queued again since is still outstanding.
func (r *Reconciler) succeeded(pod cache.PodID, queued int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.retries, pod)
	if r.outstanding[pod] == queued {
		delete(r.outstanding, pod)
	}
	if e := r.pods[pod]; e != nil && e.table != nil {
		r.audited[pod] = e.table.IsExposed()
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
	// The network namespace of a pod ends before the runtime and the API server report the end of the pod, so the first
	// failures are expected.
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

// IsGone reports whether the error belongs to a pod whose network namespace does not exist any more. ENOENT alone does
// not prove that: it is also the answer of the kernel to a message about a missing object.
func IsGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) && !errors.As(err, new(*nfnl.MessageError))
}

// reconcile brings a pod to its target, or closes its socket if it has no target. The caller holds the lock of the pod.
func (r *Reconciler) reconcile(ctx context.Context, pod cache.PodID) error {
	log := logr.FromContextOrDiscard(ctx).WithValues("pod", pod.String())
	target, ok := r.targets.Plan(pod)
	e := r.enforced(pod)
	// The tables stay: a pod without a known sandbox may still run.
	if !ok || target.Sandbox.ID == "" {
		e.close(log)
		r.forget(pod)
		return nil
	}
	// Another sandbox is another network namespace, about which nothing is known.
	if e.sandbox != target.Sandbox {
		e.close(log)
		*e = enforced{sandbox: target.Sandbox}
	}
	if err := r.searchBridge(e, &target); err != nil {
		e.close(log)
		return err
	}
	// The memory is booked before the tables are applied; tables beyond the budget are replaced here.
	r.admit(&target)
	// The small tables stay the target for now.
	if r.staysClosed(e) {
		target.Tables, target.Rules = e.tables, cache.Rules{}
		r.postpone(pod)
	}
	// A pod that starts, as the runtime said: no process runs yet, and no tables were applied.
	if target.Sandbox.Hooked && !e.applied && e.tables.IsEmpty() {
		if tables, closed := r.starts.tables(&target); closed {
			return r.startClosed(ctx, log, e, target, tables)
		}
	}
	// The larger of the tables before and after counts, since the kernel may hold both for a moment.
	defer r.flight.enter(max(target.Tables.Memory(), e.tables.Memory()))()
	if !e.applied || !sameTables(&e.tables, &target.Tables) {
		return r.apply(ctx, log, e, target)
	}
	// A pod without tables has no socket, and nothing to check.
	if e.table == nil {
		return nil
	}
	// The target has not changed. Another process may have changed the tables.
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

// admit books the memory of the target's tables. Tables that do not fit the budget are replaced by tables that isolate
// the pod and allow nothing. Pods that must make room, or may find room, are queued.
func (r *Reconciler) admit(target *cache.Target) {
	exceeds, again := r.memory.admit(target.Pod, target.Tables.Memory())
	if exceeds != "" {
		target.Tables, target.Rules = r.targets.Closed(target.Pod, exceeds), cache.Rules{}
		again = append(again, r.memory.book(target.Pod, target.Tables.Memory())...)
	}
	for _, pod := range again {
		if pod != target.Pod {
			r.queue.addNow(pod)
		}
	}
}

// forget drops all state of a pod without a target, and queues the pods that may find memory now.
func (r *Reconciler) forget(pod cache.PodID) {
	r.mu.Lock()
	delete(r.pods, pod)
	r.mu.Unlock()
	r.queue.forget(pod)
	for _, other := range r.memory.forget(pod) {
		r.queue.add(other)
	}
}
