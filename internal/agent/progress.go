package agent

import (
	"maps"
	"sync"
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

	mu        sync.Mutex
	waiting   map[cache.PodID]change    // not taken up yet, or failed
	working   map[cache.PodID]change    // that a worker follows now
	since     map[cache.PodID]time.Time // when the worker took it
	failing   map[cache.PodID]string    // why
	tried     map[cache.PodID]bool      // nil once all the pods of the start were
	sandboxes map[types.UID]time.Time   // creation of those in which nothing has been enforced yet
	newest    map[string]time.Time      // change of an object, by kind
	made      time.Time                 // oldest change since pods were last queued
}

func newProgress(m *metrics) *progress {
	return &progress{
		metrics: m, born: time.Now(), waiting: map[cache.PodID]change{}, working: map[cache.PodID]change{},
		since: map[cache.PodID]time.Time{}, failing: map[cache.PodID]string{}, tried: map[cache.PodID]bool{},
		sandboxes: map[types.UID]time.Time{}, newest: map[string]time.Time{},
	}
}

// Queued implements reconciler.Observer.
func (p *progress) Queued(pods []cache.PodID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := change{time.Now(), p.made}
	p.made = time.Time{}
	for _, key := range pods {
		p.waiting[key] = p.waiting[key].earlier(c)
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
	if !ok || t.Ruleset.IsEmpty() {
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
	c, changed := p.working[pod]
	if p.tried != nil {
		p.tried[pod] = true
	}
	delete(p.working, pod)
	if err == nil {
		delete(p.since, pod)
		delete(p.failing, pod)
		return
	}
	if !changed { // a table that is not what it was
		c = change{seen: p.since[pod]}
	}
	delete(p.since, pod)
	p.waiting[pod] = p.waiting[pod].earlier(c)
	p.metrics.failures.Inc()
	p.failing[pod] = reasonKernel
	if reconciler.IsGone(err) {
		p.failing[pod] = reasonGone
	}
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

// backlog is what is to be done.
type backlog struct {
	depth   int
	age     time.Duration // of the oldest change
	failing map[string]int
}

func (p *progress) backlog() backlog {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := backlog{failing: map[string]int{}}
	now := time.Now()
	for _, changes := range []map[cache.PodID]change{p.waiting, p.working} {
		for _, c := range changes {
			b.depth++
			b.age = max(b.age, now.Sub(c.seen))
		}
	}
	for _, reason := range p.failing {
		b.failing[reason]++
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
