package command

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
	"k8s.io/client-go/util/workqueue"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

const (
	firstRetry    = 50 * time.Millisecond // how long a pod that fails waits for its next try; doubles
	lastRetry     = 10 * time.Second
	auditInterval = 500 * time.Millisecond // between looks at whether somebody else changed a table
)

// targets is what the reconciler reads; *cache.Cache is one.
type targets interface {
	TakeDirty() []cache.Key
	Target(key cache.Key) (cache.Target, bool)
}

// table is the table in one network namespace; *engine.Engine is one.
type table interface {
	Apply(ctx context.Context, want engine.Ruleset) error
	Check(ctx context.Context) (engine.Finding, error)
	Close() error
}

// openTable opens the table of a pod in the network namespace at the path.
type openTable func(pod, netns string) (table, error)

// openEngine makes tables the agent's own where the kernel can do that.
func openEngine(f engine.Features) openTable {
	return func(pod, netns string) (table, error) {
		e, err := engine.Open(pod, netns, engine.Options{Own: f.Owner})
		if err != nil {
			return nil, err
		}
		return e, nil
	}
}

// observer is told how pods fare. It must not block.
type observer interface {
	queued(pods []cache.Key)           // their targets may have changed; there may be none
	started(pod cache.Key)             // a worker has taken the pod
	applied(target cache.Target)       // the kernel has acknowledged the ruleset
	finished(pod cache.Key, err error) // the worker is done with the pod
}

// unobserved is an observer that does not look.
type unobserved struct{}

func (unobserved) queued([]cache.Key)        {}
func (unobserved) started(cache.Key)         {}
func (unobserved) applied(cache.Target)      {}
func (unobserved) finished(cache.Key, error) {}

// reconciler carries the cache's targets into the kernel. It owns the open tables.
//
// A queue keyed by pod coalesces what happens to one pod, keeps one pod serial, lets pods run side by side, and makes a
// pod that fails wait without holding up another. What it does depends on the pod's target and on what it achieved for
// the pod before, never on what happened in between. It only ever removes a table from a pod that it knows to be
// selected by no policy: a pod that is gone, and the end of the agent, leave tables as they are.
type reconciler struct {
	targets  targets
	open     openTable
	observer observer
	queue    workqueue.TypedRateLimitingInterface[cache.Key]
	locks    podLocks // who has the lock of a pod works on it

	mu          sync.Mutex
	pods        map[cache.Key]*enforced
	outstanding map[cache.Key]int      // times queued since the pod was last as it should be
	audited     map[cache.Key]struct{} // pods whose table is open and was last as it should be
	ended       bool                   // Run has: nothing is opened any more
}

// enforced is what has been achieved for one pod. Only who has the pod's lock touches it.
type enforced struct {
	sandbox cache.Sandbox
	table   table // nil: not open
	applied bool  // ruleset is in the kernel
	ruleset engine.Ruleset
	found   engine.Finding // by the last look at the table
}

func newReconciler(t targets, open openTable) *reconciler {
	return &reconciler{
		targets:  t,
		open:     open,
		observer: unobserved{},
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[cache.Key](firstRetry, lastRetry)),
		pods:        map[cache.Key]*enforced{},
		outstanding: map[cache.Key]int{},
		audited:     map[cache.Key]struct{}{},
	}
}

// Notify queues the pods whose targets may have changed. It does not block, and may be called before Run.
func (r *reconciler) Notify() {
	r.mu.Lock() // before the keys are taken, so that Settled does not miss them
	keys := r.targets.TakeDirty()
	for _, key := range keys {
		r.outstanding[key]++
	}
	r.mu.Unlock()
	r.observer.queued(keys)
	for _, key := range keys {
		r.queue.Add(key)
	}
}

// Settled says whether every pod that was queued is as it should be.
func (r *reconciler) Settled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.outstanding) == 0
}

// Run works until the context ends, lets the batches under way finish, and closes the tables, which stay in force.
func (r *reconciler) Run(ctx context.Context) {
	defer context.AfterFunc(ctx, r.queue.ShutDown)()
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for r.next(ctx) {
			}
		})
	}
	workers.Go(func() { r.audit(ctx) })
	workers.Wait()
	r.mu.Lock()
	r.ended = true
	keys := slices.Collect(maps.Keys(r.pods))
	r.mu.Unlock()
	for _, key := range keys {
		unlock := r.locks.lock(key)
		r.pod(key).close(logr.FromContextOrDiscard(ctx).WithValues("pod", key.String()))
		unlock()
	}
}

// audit queues the pods that have a table, from time to time. A look costs one question to the kernel.
func (r *reconciler) audit(ctx context.Context) {
	ticker := time.NewTicker(auditInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		r.mu.Lock()
		keys := slices.Collect(maps.Keys(r.audited)) // one that failed waits for its own next try
		r.mu.Unlock()
		for _, key := range keys {
			r.queue.Add(key)
		}
	}
}

// next takes one pod from the queue. It is false when the queue is shut down.
func (r *reconciler) next(ctx context.Context) bool {
	key, shutdown := r.queue.Get()
	if shutdown {
		return false
	}
	defer r.queue.Done(key)
	if ctx.Err() != nil {
		return true
	}
	defer r.locks.lock(key)()
	if err := r.work(ctx, key); err != nil {
		r.failed(ctx, key, err)
		return true
	}
	r.queue.Forget(key)
	return true
}

// work makes one pod what its target says, once.
func (r *reconciler) work(ctx context.Context, key cache.Key) error {
	r.mu.Lock()
	queued := r.outstanding[key]
	r.mu.Unlock()
	r.observer.started(key)
	// A batch that was sent is waited for: what the kernel has is then known, also when the agent stops meanwhile.
	err := r.reconcile(context.WithoutCancel(ctx), key)
	r.observer.finished(key, err)
	if err == nil {
		r.succeeded(key, queued)
	}
	return err
}

// succeeded takes note that a pod is as it should be, as of when it had been queued so many times.
func (r *reconciler) succeeded(key cache.Key, queued int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.outstanding[key] == queued {
		delete(r.outstanding, key)
	}
	if pod := r.pods[key]; pod != nil && pod.table != nil {
		r.audited[key] = struct{}{}
	} else {
		delete(r.audited, key)
	}
}

// failed makes the pod wait.
func (r *reconciler) failed(ctx context.Context, key cache.Key, err error) {
	r.mu.Lock()
	delete(r.audited, key)
	r.mu.Unlock()
	tries := r.queue.NumRequeues(key)
	r.queue.AddRateLimited(key)
	log := logr.FromContextOrDiscard(ctx).WithValues("pod", key.String(), "try", tries+1)
	var errno unix.Errno
	if errors.As(err, &errno) {
		log = log.WithValues("errno", unix.ErrnoName(errno))
	}
	// A pod's network namespace goes before the runtime, and then the API server, say so.
	if isGone(err) && tries < 3 {
		log.V(1).Info("The pod's network namespace is gone", "cause", err.Error())
		return
	}
	log.Error(err, "Policies are not up to date in the pod; what was in force stays, and it is tried again")
}

// isGone says whether the error is of a pod whose network namespace is not there any more. ENOENT is also what the kernel
// says of a message that names what is not there.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) && !errors.As(err, new(*engine.MessageError))
}

// reconcile makes one pod what its target says.
func (r *reconciler) reconcile(ctx context.Context, key cache.Key) error {
	log := logr.FromContextOrDiscard(ctx).WithValues("pod", key.String())
	target, ok := r.targets.Target(key)
	pod := r.pod(key)
	if !ok || target.Sandbox.ID == "" {
		pod.close(log)
		r.forget(key)
		return nil
	}
	if pod.sandbox != target.Sandbox {
		pod.close(log)
		*pod = enforced{sandbox: target.Sandbox}
	}
	if !pod.applied || !sameRuleset(pod.ruleset, target.Ruleset) {
		return r.apply(ctx, log, pod, target)
	}
	if pod.table == nil {
		return nil
	}
	found, err := pod.table.Check(ctx)
	if err != nil {
		log.V(1).Info("The table in the pod cannot be checked, so it is applied again", "cause", err.Error())
		return r.apply(ctx, log, pod, target)
	}
	if found != pod.found || found == engine.Repaired {
		logFinding(log, found)
	}
	pod.found = found
	return nil
}

func logFinding(log logr.Logger, found engine.Finding) {
	switch found {
	case engine.Repaired:
		log.Info("Somebody changed the table in the pod; it is what it should be again")
	case engine.OwnedByAnother:
		log.Info("The table in the pod is what it should be, and another process owns it; it is taken over when that ends")
	case engine.TakenOver:
		log.Info("The table in the pod had another owner; it is this agent's now")
	}
}

func (r *reconciler) apply(ctx context.Context, log logr.Logger, pod *enforced, target cache.Target) error {
	start := time.Now()
	err := r.tryApply(ctx, pod, target)
	// What the kernel refuses it said on a socket that works. Another error may be the socket's own: then another socket
	// is tried at once, since a table whose owner is gone is anyone's.
	var refused *engine.MessageError
	if err != nil && !errors.As(err, &refused) {
		pod.close(log)
		err = r.tryApply(ctx, pod, target)
	}
	if err != nil {
		pod.applied = false
		return err
	}
	removed := target.Ruleset.IsEmpty() && !pod.ruleset.IsEmpty()
	pod.applied, pod.ruleset = true, target.Ruleset
	r.observer.applied(target)
	took := time.Since(start).Round(time.Microsecond)
	switch {
	case removed:
		log.Info("No policy applies any more", "took", took)
	case target.Ruleset.IsEmpty():
		log.V(2).Info("No policy applies", "took", took)
	default:
		log.Info("Policies enforced", "sets", len(target.Ruleset.Sets), "chains", len(target.Ruleset.Chains), "took", took)
	}
	if target.Ruleset.IsEmpty() {
		pod.close(log) // most pods have no policy: none of them costs a descriptor
	}
	return nil
}

func (r *reconciler) tryApply(ctx context.Context, pod *enforced, target cache.Target) error {
	if pod.table == nil {
		opened, err := r.open(target.Pod.String(), target.Sandbox.NetNS)
		if err != nil {
			return err
		}
		pod.table = opened
	}
	return pod.table.Apply(ctx, target.Ruleset)
}

// sameRuleset relies on what a Ruleset points to being immutable and shared.
func sameRuleset(a, b engine.Ruleset) bool {
	return slices.Equal(a.Sets, b.Sets) && slices.Equal(a.Chains, b.Chains)
}

// pod returns what has been achieved for a pod.
func (r *reconciler) pod(key cache.Key) *enforced {
	r.mu.Lock()
	defer r.mu.Unlock()
	pod := r.pods[key]
	if pod == nil {
		pod = &enforced{}
		r.pods[key] = pod
	}
	return pod
}

func (r *reconciler) forget(key cache.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pods, key)
}

// close lets go of the network namespace. The table in it stays.
func (p *enforced) close(log logr.Logger) {
	if p.table == nil {
		return
	}
	if err := p.table.Close(); err != nil {
		log.Error(err, "Closing the pod's netlink socket")
	}
	p.table = nil
}
