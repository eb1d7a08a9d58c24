package reconciler

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// Shares of the workers' time. A pod may use a fifth of a worker all the time, and some seconds at once. A pod that
// uses more waits until it is back at its share. So a tenant whose policies change all the time cannot occupy a worker.
const (
	// podShare is a part of a worker. A pod that works 1 s gets it back in 5 s.
	podShare  = 0.2
	podCredit = 5 * time.Second // of work, at once
	// longestWait bounds the wait after a single piece of work that took very long.
	longestWait = 5 * time.Minute
)

// queue holds the pods that wait for a worker. Like client-go's workqueue, it holds each pod once and never gives a pod
// to two workers. It is fair: the next pod belongs to the namespace whose pods have used the least time of the workers,
// and a namespace never occupies more than some of the workers. API Priority and Fairness (KEP-1040) does the same for
// requests. A pod moves between these places:
//
//	add ─► waiting, in the share of its namespace ─► get ─► working ─► done
//	 │       ▲         ▲                                       │
//	 └─► delayed       └─────────── added again meanwhile ◄────┘
type queue struct {
	// perNamespace is the maximum number of workers that a namespace occupies. It leaves workers for other namespaces,
	// however long the pods of a namespace take.
	perNamespace int

	// mu guards the fields below, except the atomic fields.
	mu         sync.Mutex
	nonEmpty   sync.Cond
	closed     bool
	namespaces map[string]*share        // by name; a namespace that waits, works, or has used more than the floor
	waiting    map[cache.PodID]struct{} // in a share, or to be put into its share after the work on it
	working    map[cache.PodID]struct{} // pods that a worker has
	delayed    map[cache.PodID]delay    // pods that come into the queue later
	accounts   map[cache.PodID]account  // pods that have used a part of their credit
	// floor is the use at which a namespace starts that comes or comes back. It follows the least use of the namespaces
	// that wait, and never falls. Without it, a namespace that was idle for long could take all workers until it has
	// caught up.
	floor time.Duration

	throttled      atomic.Int64  // pods that wait for their share
	throttledTotal atomic.Uint64 // times that a pod had to wait for its share
}

// delay is a pod that comes into the queue later, by a timer.
type delay struct {
	timer    *time.Timer
	forShare bool // the pod has used more than its share: counts as throttled
}

// share has the pods of a namespace that wait, in their order, and the time that the namespace has used.
type share struct {
	pods    []entry
	working int           // number of its pods that workers have
	used    time.Duration // time of workers, counted from the floor at which it came
}

// entry is a pod that waits, and the start of its wait.
type entry struct {
	pod   cache.PodID
	since time.Time
}

// account is the work time that a pod may still use, as of a time. It is negative after more work than that; the pod
// then waits until it is 0.
type account struct {
	credit time.Duration
	at     time.Time
}

// newQueue returns an empty queue. perNamespace must be at least 1.
func newQueue(perNamespace int) *queue {
	q := &queue{
		perNamespace: perNamespace, namespaces: map[string]*share{}, waiting: map[cache.PodID]struct{}{},
		working: map[cache.PodID]struct{}{}, delayed: map[cache.PodID]delay{}, accounts: map[cache.PodID]account{},
	}
	q.nonEmpty.L = &q.mu
	return q
}

// add queues a pod. A pod that has used more than its share is queued when it is back at its share.
func (q *queue) add(pod cache.PodID) { q.addAll([]cache.PodID{pod}) }

// addAll queues pods like add.
func (q *queue) addAll(pods []cache.PodID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, pod := range pods {
		q.enqueue(pod)
	}
}

// isCrowded reports whether as many workers work as a namespace may occupy, and so at least as many as the node has cores.
func (q *queue) isCrowded() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.working) >= q.perNamespace
}

// enqueue does the work of add. The caller holds mu.
func (q *queue) enqueue(pod cache.PodID) {
	if wait := q.debt(pod, time.Now()); wait > 0 {
		q.delay(pod, wait, true)
		return
	}
	q.push(pod)
}

// addNow queues a pod that must give memory back, or may have memory now. It does not wait for its share of the
// workers, since other pods wait for the memory.
func (q *queue) addNow(pod cache.PodID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.push(pod)
}

// addAfter queues a pod after a pause, or earlier if add queues it. The wait for its share counts too.
func (q *queue) addAfter(pod cache.PodID, pause time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	wait := q.debt(pod, time.Now())
	q.delay(pod, max(pause, wait), wait > pause)
}

// delay queues a pod after a pause. A pod that is delayed already keeps its timer. The caller holds mu.
func (q *queue) delay(pod cache.PodID, pause time.Duration, forShare bool) {
	if _, set := q.delayed[pod]; set || q.closed {
		return
	}
	if forShare {
		q.throttled.Add(1)
		q.throttledTotal.Add(1)
	}
	timer := time.AfterFunc(pause, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.undelay(pod)
		q.push(pod)
	})
	q.delayed[pod] = delay{timer, forShare}
}

// undelay stops the timer of a pod, if it has a timer. The caller holds mu.
func (q *queue) undelay(pod cache.PodID) {
	d, set := q.delayed[pod]
	if !set {
		return
	}
	d.timer.Stop()
	if d.forShare {
		q.throttled.Add(-1)
	}
	delete(q.delayed, pod)
}

// push puts a pod into the share of its namespace, unless it is there already. A pod with a worker comes into the share
// when the worker is done: it is never given to two workers. The caller holds mu.
func (q *queue) push(pod cache.PodID) {
	if _, is := q.waiting[pod]; is || q.closed {
		return
	}
	q.waiting[pod] = struct{}{}
	q.undelay(pod)
	if _, is := q.working[pod]; is {
		return // done puts it into its share
	}
	q.enter(pod)
}

// enter appends a pod to the share of its namespace. A namespace that did not wait starts at the floor: it gets no time
// back for the time in which it was idle. The caller holds mu.
func (q *queue) enter(pod cache.PodID) {
	s := q.namespaces[pod.Namespace]
	if s == nil {
		s = &share{used: q.floor}
		q.namespaces[pod.Namespace] = s
	}
	if len(s.pods) == 0 && s.working == 0 {
		s.used = max(s.used, q.floor)
	}
	s.pods = append(s.pods, entry{pod, time.Now()})
	q.nonEmpty.Signal()
}

// get waits for a pod and returns it. The caller must call done. It returns false when the queue is closed.
func (q *queue) get() (cache.PodID, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if q.closed {
			return cache.PodID{}, false
		}
		if s := q.next(); s != nil {
			pod := s.pods[0].pod
			s.pods = s.pods[1:]
			s.working++
			delete(q.waiting, pod)
			q.working[pod] = struct{}{}
			return pod, true
		}
		q.nonEmpty.Wait()
	}
}

// next returns the share of the namespace with the least use that may occupy another worker, or nil. It looks at all
// namespaces: only namespaces with pods that wait or work are in the map, or with a recent use.
func (q *queue) next() *share {
	var best *share
	for _, s := range q.namespaces {
		if len(s.pods) > 0 && s.working < q.perNamespace && (best == nil || s.used < best.used) {
			best = s
		}
	}
	if best != nil {
		q.floor = max(q.floor, best.used)
	}
	return best
}

// done ends the work on a pod, and books the time that it took. A pod that was added meanwhile waits again.
func (q *queue) done(pod cache.PodID, took time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	s := q.namespaces[pod.Namespace]
	s.working--
	s.used += took
	q.charge(pod, took, now)
	delete(q.working, pod)
	if _, again := q.waiting[pod]; again {
		delete(q.waiting, pod)
		// The pod waits for its share as a delayed pod, and is no longer in waiting.
		if wait := q.debt(pod, now); wait > 0 {
			q.delay(pod, wait, true)
		} else {
			q.waiting[pod] = struct{}{}
			q.enter(pod)
		}
	}
	// A namespace that has used more than the floor keeps its entry: it must not start anew at the floor.
	if len(s.pods) == 0 && s.working == 0 && s.used <= q.floor {
		delete(q.namespaces, pod.Namespace)
	}
	q.nonEmpty.Signal() // the namespace may have another worker now
}

// charge books the time of a worker on the account of a pod. A pod with full credit needs no account; the millisecond
// keeps cheap work from making an account for each pod.
func (q *queue) charge(pod cache.PodID, took time.Duration, now time.Time) {
	a := q.refilled(pod, now)
	a.credit -= took
	if a.credit >= podCredit-time.Millisecond {
		delete(q.accounts, pod)
		return
	}
	q.accounts[pod] = a
}

// refilled returns the account of a pod with the credit up to now.
func (q *queue) refilled(pod cache.PodID, now time.Time) account {
	a, ok := q.accounts[pod]
	if !ok {
		return account{podCredit, now}
	}
	a.credit = min(podCredit, a.credit+time.Duration(podShare*float64(max(0, now.Sub(a.at)))))
	a.at = now
	return a
}

// debt returns how long a pod must wait until it is back at its share; 0: it need not wait.
func (q *queue) debt(pod cache.PodID, now time.Time) time.Duration {
	a := q.refilled(pod, now)
	if a.credit >= 0 {
		return 0
	}
	return min(time.Duration(float64(-a.credit)/podShare), longestWait)
}

// forget drops the account of a pod that is gone, and the entries of namespaces that have nothing to wait for.
func (q *queue) forget(pod cache.PodID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.accounts, pod)
	for name, s := range q.namespaces {
		if len(s.pods) == 0 && s.working == 0 && s.used <= q.floor {
			delete(q.namespaces, name)
		}
	}
}

// close ends all waits. get returns false from now on, and delayed pods never come.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for pod := range q.delayed {
		q.undelay(pod)
	}
	q.nonEmpty.Broadcast()
}

// stalled returns the longest wait of a pod that a free worker could have taken. Pods of a namespace that occupies all
// of its workers do not count: they wait for their own namespace.
func (q *queue) stalled() (longest time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.namespaces {
		if len(s.pods) > 0 && s.working < q.perNamespace {
			longest = max(longest, time.Since(s.pods[0].since))
		}
	}
	return longest
}
