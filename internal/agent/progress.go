package agent

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/enforcement"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/reconciler"
)

// Limits of what counts as the start of a pod.
const (
	startWindow = 2 * time.Minute // a pod enforced later than this was selected later, and says nothing of how pods start
)

// Reasons why the table of a pod differs from the wanted table, as values of the label reason.
const (
	reasonKernel = enforcement.ReasonKernel
	reasonGone   = enforcement.ReasonGone
)

// change has the times of a change that the rules of a pod must follow.
// Both clocks differ: seen is of the node, made is of the API server.
type change struct {
	// seen is when the agent received it.
	seen time.Time
	// made is when a client of the API made it; zero: unknown.
	made time.Time
}

// earlier returns the older time of each kind, for two changes that a pod follows in a single step: the pod has waited
// since the older change.
func (c change) earlier(d change) change { return change{older(c.seen, d.seen), older(c.made, d.made)} }

// older returns the earlier time; a zero time is unknown and loses.
func older(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// progress follows each pod's way from an event to the kernel, and measures it. It implements reconciler.Observer. A
// pod moves between two maps:
//
//	Queued ─► waiting ─► Started ─► working ─► Finished
//	             ▲                                 │ error
//	             └─────────────────────────────────┘
type progress struct {
	metrics *metrics
	born    time.Time // start of the agent

	// The atomic fields are for scrapes, which must not take mu. publish sets them.
	depth   atomic.Int64             // pods in waiting and working
	oldest  atomic.Int64             // the oldest change of these, in nanoseconds since 1970; 0: none
	reasons map[string]*atomic.Int64 // pods that fail, by reason

	// mu guards the fields below.
	mu        sync.Mutex
	waiting   map[cache.PodID]change    // the change of pods that wait for a worker, or for a retry
	working   map[cache.PodID]change    // the change that a worker follows now
	since     map[cache.PodID]time.Time // when the worker took the pod
	failing   map[cache.PodID]string    // reason of the last failure
	tried     map[cache.PodID]bool      // whether each pod since the start was reconciled; nil once the agent is ready
	sandboxes map[types.UID]time.Time   // time of creation of sandboxes without enforced tables, by the UID of the pod
	newest    map[string]time.Time      // time of the newest change, by kind of object
	made      time.Time                 // time of the oldest change since pods were last queued; zero: unknown
	order     []waitingPod              // waits by age, for the age of the oldest; some may have ended
}

// waitingPod is a wait: a pod, and since when it waits.
// A pod can have several in the list; only the wait since its current time counts.
type waitingPod struct {
	pod  cache.PodID
	seen time.Time
}

// newProgress returns a progress whose agent starts now.
func newProgress(m *metrics) *progress {
	return &progress{
		metrics: m, born: time.Now(), waiting: map[cache.PodID]change{}, working: map[cache.PodID]change{},
		since: map[cache.PodID]time.Time{}, failing: map[cache.PodID]string{}, tried: map[cache.PodID]bool{},
		sandboxes: map[types.UID]time.Time{}, newest: map[string]time.Time{},
		reasons: map[string]*atomic.Int64{reasonGone: {}, reasonKernel: {}},
	}
}

// Queued implements reconciler.Observer.
// Pods may be queued already.
func (p *progress) Queued(pods []cache.PodID, since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.publish()
	// All pods of a call have the same change: the objects changed since the last call.
	c := change{since, p.made}
	p.made = time.Time{}
	for _, key := range pods {
		p.wait(key, c)
		if p.tried != nil && !p.tried[key] {
			p.tried[key] = false
		}
	}
}

// Started implements reconciler.Observer.
func (p *progress) Started(pod cache.PodID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since[pod] = time.Now()
	// A worker may take a pod without a change: a check, or a pod that starts.
	if c, ok := p.waiting[pod]; ok {
		p.working[pod] = c
		delete(p.waiting, pod)
	}
}

// Applied implements reconciler.Observer.
func (p *progress) Applied(t cache.Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.metrics.synced(p.working[t.Pod], now)
	created, ok := p.sandboxes[t.Pod.UID]
	if !ok || t.Tables.IsEmpty() {
		return
	}
	delete(p.sandboxes, t.Pod.UID)
	if took := now.Sub(created); took < startWindow {
		p.metrics.podStart.Observe(max(0, took.Seconds()))
	}
}

// Finished implements reconciler.Observer.
// An error means that the pod is queued for a retry.
func (p *progress) Finished(pod cache.PodID, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.publish()
	c, changed := p.working[pod]
	if p.tried != nil {
		p.tried[pod] = true
	}
	delete(p.working, pod)
	if err == nil {
		delete(p.since, pod)
		p.setFailing(pod, "")
		return
	}
	if !changed { // a check or a repair failed: no change of an object, so the wait starts with the work
		c = change{seen: p.since[pod]}
	}
	delete(p.since, pod)
	p.wait(pod, c)
	p.metrics.failures.Inc()
	if reconciler.IsGone(err) {
		p.setFailing(pod, reasonGone)
	} else {
		p.setFailing(pod, reasonKernel)
	}
}

// wait notes that a pod waits since a change. If the pod waits already, the older time stays.
// The caller holds mu.
func (p *progress) wait(pod cache.PodID, c change) {
	before, waits := p.waiting[pod]
	now := before.earlier(c)
	p.waiting[pod] = now
	if !waits || now.seen != before.seen {
		p.order = append(p.order, waitingPod{pod, now.seen})
	}
}

// setFailing notes the reason why a pod fails. An empty reason means that it does not fail.
// The caller holds mu.
func (p *progress) setFailing(pod cache.PodID, reason string) {
	if before, fails := p.failing[pod]; fails {
		p.reasons[before].Add(-1)
		delete(p.failing, pod)
	}
	if reason != "" {
		p.reasons[reason].Add(1)
		p.failing[pod] = reason
	}
}

// waits reports whether a wait has not ended: the pod still waits or is worked on, since the same time.
// The caller holds mu.
func (p *progress) waits(w waitingPod) bool {
	return p.waiting[w.pod].seen.Equal(w.seen) || p.working[w.pod].seen.Equal(w.seen)
}

// waitsSince returns since when a pod waits for the oldest change that its tables lack; zero: they lack none.
func (p *progress) waitsSince(pod cache.PodID) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return older(p.waiting[pod].seen, p.working[pod].seen)
}

// publish updates the counts of the backlog, so that a scrape takes no lock. The caller holds mu.
func (p *progress) publish() {
	p.depth.Store(int64(len(p.waiting) + len(p.working)))
	// The loop below removes only from the front, so waits that have ended pile up behind a pod that waits for long.
	if len(p.order) > 2*int(p.depth.Load())+1000 {
		p.order = slices.DeleteFunc(p.order, func(w waitingPod) bool { return !p.waits(w) })
	}
	for len(p.order) > 0 {
		first := p.order[0]
		if p.waits(first) {
			p.oldest.Store(first.seen.UnixNano())
			return
		}
		p.order = p.order[1:]
	}
	p.order = nil
	p.oldest.Store(0)
}

// found notes a new sandbox. A sandbox from before the start of the agent is ignored: its age does not tell how long
// the agent took.
// Sandboxes that are older than startWindow are forgotten.
func (p *progress) found(uid types.UID, created time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.sandboxes, func(_ types.UID, t time.Time) bool { return time.Since(t) > startWindow })
	if created.After(p.born) {
		p.sandboxes[uid] = created
	}
}

// changed notes the time at which an object was changed. An object that is older than an earlier object of its kind was
// listed again, and did not change now.
// kind is a kind of the package informers.
func (p *progress) changed(kind string, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// The API server has times in whole seconds.
	if t.Before(p.born.Truncate(time.Second)) || t.Before(p.newest[kind]) {
		return
	}
	p.newest[kind] = t
	p.made = older(p.made, t)
}

// backlog counts the changes that are not in force yet, for a scrape.
// Failed pods are in depth too.
type backlog struct {
	depth   int64
	age     time.Duration // of the oldest change
	failing map[string]int64
}

// backlog returns the counts now. It takes no lock.
func (p *progress) backlog() backlog {
	b := backlog{depth: p.depth.Load(), failing: map[string]int64{}}
	if oldest := p.oldest.Load(); oldest != 0 {
		b.age = time.Since(time.Unix(0, oldest))
	}
	for reason, n := range p.reasons {
		b.failing[reason] = n.Load()
	}
	return b
}

// allTried reports whether every pod that was queued so far has been reconciled once, with or without success.
// It is true before the first pod is queued.
func (p *progress) allTried() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, done := range p.tried {
		if !done {
			return false
		}
	}
	return true
}

// forgetTried ends the check of allTried: later pods do not make a ready agent unready.
func (p *progress) forgetTried() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tried = nil
}
