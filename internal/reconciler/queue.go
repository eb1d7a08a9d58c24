package reconciler

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// Shares of the workers' time. A pod may use a fifth of a worker for as long as it likes, and some seconds at once. A pod
// that keeps using more waits until it is back at its share.
const (
	podShare    = 0.2             // of a worker
	podCredit   = 5 * time.Second // of work, at once
	longestWait = 5 * time.Minute
)

// queue holds the pods that wait for a worker. Like client-go's workqueue, it holds each pod once and never gives a pod to
// two workers. It is fair: the next pod is of the namespace whose pods have used the least time of the workers, and a
// namespace never occupies more than some of them. See API Priority and Fairness (KEP-1040), which does the same for
// requests.
type queue struct {
	perNamespace int // workers that a namespace may occupy

	mu         sync.Mutex
	nonEmpty   sync.Cond
	closed     bool
	namespaces map[string]*share
	waiting    map[cache.PodID]struct{} // in a share, or to be put into its share after the work on it
	working    map[cache.PodID]struct{}
	delayed    map[cache.PodID]delay
	accounts   map[cache.PodID]account // pods that have used some of their credit
	floor      time.Duration           // the least use of a namespace that waits: a namespace that comes starts here

	throttled      atomic.Int64  // pods that wait for their share
	throttledTotal atomic.Uint64 // times that a pod had to wait for its share
}

// delay is a pod that comes into the queue later.
type delay struct {
	timer    *time.Timer
	forShare bool // it has used more than its share
}

// share is the pods of a namespace that wait, in their order, and the time that the namespace has used.
type share struct {
	pods    []entry
	working int
	used    time.Duration
}

// entry is a pod that waits, and since when.
type entry struct {
	pod   cache.PodID
	since time.Time
}

// account is the work time that a pod may still use, as of a time. It may be negative.
type account struct {
	credit time.Duration
	at     time.Time
}

func newQueue(perNamespace int) *queue {
	q := &queue{
		perNamespace: perNamespace, namespaces: map[string]*share{}, waiting: map[cache.PodID]struct{}{},
		working: map[cache.PodID]struct{}{}, delayed: map[cache.PodID]delay{}, accounts: map[cache.PodID]account{},
	}
	q.nonEmpty.L = &q.mu
	return q
}

// add queues a pod. A pod that has used more than its share waits for it.
func (q *queue) add(pod cache.PodID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if wait := q.debt(pod, time.Now()); wait > 0 {
		q.delay(pod, wait, true)
		return
	}
	q.push(pod)
}

// addNow queues a pod that must give memory back, or may have memory now. It does not wait for its share of the workers.
func (q *queue) addNow(pod cache.PodID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.push(pod)
}

// addAfter queues a pod after a pause, unless it comes earlier by itself.
func (q *queue) addAfter(pod cache.PodID, pause time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	wait := q.debt(pod, time.Now())
	q.delay(pod, max(pause, wait), wait > pause)
}

// delay queues a pod after a pause. A pod that is delayed already comes soon enough.
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

// push puts a pod into the share of its namespace, unless the share has it or a worker works on it.
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

// get waits for a pod and hands it to the caller, who calls done. It is false when the queue is closed.
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

// next returns the share whose turn it is, or nil.
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

// done takes a pod back, and the time that it took.
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
		if wait := q.debt(pod, now); wait > 0 {
			q.delay(pod, wait, true)
		} else {
			q.waiting[pod] = struct{}{}
			q.enter(pod)
		}
	}
	if len(s.pods) == 0 && s.working == 0 && s.used <= q.floor {
		delete(q.namespaces, pod.Namespace)
	}
	q.nonEmpty.Signal() // the namespace may have another worker now
}

// charge books the time of a worker to a pod. A pod with full credit needs no account.
func (q *queue) charge(pod cache.PodID, took time.Duration, now time.Time) {
	a := q.refilled(pod, now)
	a.credit -= took
	if a.credit >= podCredit-time.Millisecond {
		delete(q.accounts, pod)
		return
	}
	q.accounts[pod] = a
}

func (q *queue) refilled(pod cache.PodID, now time.Time) account {
	a, ok := q.accounts[pod]
	if !ok {
		return account{podCredit, now}
	}
	a.credit = min(podCredit, a.credit+time.Duration(podShare*float64(max(0, now.Sub(a.at)))))
	a.at = now
	return a
}

// debt is how long a pod must wait until it is back at its share.
func (q *queue) debt(pod cache.PodID, now time.Time) time.Duration {
	a := q.refilled(pod, now)
	if a.credit >= 0 {
		return 0
	}
	return min(time.Duration(float64(-a.credit)/podShare), longestWait)
}

// forget drops the account of a pod that is gone.
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

// close ends all waits; nothing is handed out any more.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for pod := range q.delayed {
		q.undelay(pod)
	}
	q.nonEmpty.Broadcast()
}

// stalled returns how long a pod has waited that a free worker would have taken. Pods of a namespace that occupies all of
// its workers do not count: they wait for their own namespace.
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
