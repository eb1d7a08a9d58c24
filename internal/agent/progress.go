package agent

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/reconciler"
)

const (
	startWindow = 2 * time.Minute // a pod enforced later than this was selected later, and says nothing of how pods start
)

// Why a pod's table is not what it should be.
const (
	reasonKernel = "kernel_error"
	reasonGone   = "namespace_gone"
)

// change is when something changed that a pod's rules must follow.
type change struct {
	seen time.Time // when the agent heard of it
	made time.Time // when somebody made it; zero: not said
}

// earlier is the older of two changes that are followed at the same time.
func (c change) earlier(d change) change { return change{older(c.seen, d.seen), older(c.made, d.made)} }

func older(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// progress follows each pod's way from an event to the kernel. It is the reconciler's observer.
type progress struct {
	metrics *metrics
	born    time.Time

	depth   atomic.Int64             // pods in waiting and working
	oldest  atomic.Int64             // the oldest change of these, in nanoseconds since 1970; 0: none
	reasons map[string]*atomic.Int64 // pods that fail, by reason

	mu        sync.Mutex
	waiting   map[cache.PodID]change    // not taken up yet, or failed
	working   map[cache.PodID]change    // that a worker follows now
	since     map[cache.PodID]time.Time // when the worker took it
	failing   map[cache.PodID]string    // why
	tried     map[cache.PodID]bool      // nil once all the pods of the start were
	sandboxes map[types.UID]time.Time   // creation of those in which nothing has been enforced yet
	newest    map[string]time.Time      // change of an object, by kind
	made      time.Time                 // oldest change since pods were last queued
	order     []waitingPod              // changes by age, with changes that are done
}

// waitingPod is a pod that has waited since a time.
type waitingPod struct {
	pod  cache.PodID
	seen time.Time
}

func newProgress(m *metrics) *progress {
	return &progress{
		metrics: m, born: time.Now(), waiting: map[cache.PodID]change{}, working: map[cache.PodID]change{},
		since: map[cache.PodID]time.Time{}, failing: map[cache.PodID]string{}, tried: map[cache.PodID]bool{},
		sandboxes: map[types.UID]time.Time{}, newest: map[string]time.Time{},
		reasons: map[string]*atomic.Int64{reasonGone: {}, reasonKernel: {}},
	}
}

// Queued implements reconciler.Observer.
func (p *progress) Queued(pods []cache.PodID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.publish()
	c := change{time.Now(), p.made}
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
	if !changed { // a table that is not what it was
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

// wait notes a change that a pod waits with.
func (p *progress) wait(pod cache.PodID, c change) {
	before, waits := p.waiting[pod]
	now := before.earlier(c)
	p.waiting[pod] = now
	if !waits || now.seen != before.seen {
		p.order = append(p.order, waitingPod{pod, now.seen})
	}
}

// setFailing notes why a pod fails; empty: it does not.
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

// waits reports whether a change has not been followed yet.
func (p *progress) waits(w waitingPod) bool {
	return p.waiting[w.pod].seen.Equal(w.seen) || p.working[w.pod].seen.Equal(w.seen)
}

// publish brings the counts of the backlog up to date, so that a scrape takes no lock.
func (p *progress) publish() {
	p.depth.Store(int64(len(p.waiting) + len(p.working)))
	if len(p.order) > 2*int(p.depth.Load())+1000 { // behind a pod that waits for long, others are done
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

// found takes note of a new sandbox. What was there before the agent says nothing of how pods start.
func (p *progress) found(uid types.UID, created time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.sandboxes, func(_ types.UID, t time.Time) bool { return time.Since(t) > startWindow })
	if created.After(p.born) {
		p.sandboxes[uid] = created
	}
}

// changed notes when an object was changed. An object that is older than another of its kind that came before was listed
// again, not changed now.
func (p *progress) changed(kind string, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.Before(p.born.Truncate(time.Second)) || t.Before(p.newest[kind]) {
		return
	}
	p.newest[kind] = t
	p.made = older(p.made, t)
}

// backlog counts the changes that are not in force yet.
type backlog struct {
	depth   int64
	age     time.Duration // of the oldest change
	failing map[string]int64
}

// backlog takes no lock.
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

// allTried says whether every pod that was queued so far has been reconciled once, with success or not.
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

// forgetTried ends the count of what was tried: what comes now does not make a ready agent unready.
func (p *progress) forgetTried() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tried = nil
}
