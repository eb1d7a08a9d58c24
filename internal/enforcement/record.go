//go:build linux

package enforcement

import (
	"sync"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/reconciler"
)

// maxErrorBytes bounds the text of an error that is kept for a pod.
const maxErrorBytes = 500

// Record notes for each pod which policies the kernel holds, and the last error. It implements reconciler.Observer. Its methods are
// safe for concurrent use, and hold its lock only for a moment.
type Record struct {
	reconciler.Unobserved
	isKnown func(cache.PodID) bool

	mu   sync.Mutex
	pods map[cache.PodID]podRecord // pods with acknowledged rules, or with an error
}

// podRecord never changes; the map gets a new one.
type podRecord struct {
	acknowledged *cache.Acknowledged
	failure      *failure // nil: the last work on the pod succeeded
}

// failure is the last error of a pod.
type failure struct {
	reason  string
	message string
	since   time.Time // time of the first error since the last success
}

// NewRecord returns an empty record. isKnown reports whether a pod is still a local pod with known interfaces.
func NewRecord(isKnown func(cache.PodID) bool) *Record {
	return &Record{isKnown: isKnown, pods: map[cache.PodID]podRecord{}}
}

// Applied implements reconciler.Observer.
func (r *Record) Applied(t cache.Target) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pods[t.Pod]
	// Most changes are of members of groups: the rules stay the same, and so does the record.
	if next := p.acknowledged.Acknowledge(&t, now); next != p.acknowledged {
		p.acknowledged = next
		r.set(t.Pod, p)
	}
}

// Finished implements reconciler.Observer. The reconciler forgets a pod that is gone, or whose interfaces are unknown, in the same
// step.
func (r *Record) Finished(pod cache.PodID, err error) {
	if err == nil && r.of(pod) == (podRecord{}) {
		return
	}
	isKnown := r.isKnown(pod) // takes the lock of the cache, so not under mu
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pods[pod]
	switch {
	case !isKnown:
		p = podRecord{}
	case err == nil:
		p.failure = nil
	default:
		p.failure = failureOf(err, p.failure)
	}
	r.set(pod, p)
}

// set changes the entry of a pod. The caller holds mu.
func (r *Record) set(pod cache.PodID, p podRecord) {
	if p == (podRecord{}) {
		delete(r.pods, pod)
		return
	}
	r.pods[pod] = p
}

func (r *Record) of(pod cache.PodID) podRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pods[pod]
}

// failureOf returns the failure for an error after the failure before, which may be nil.
func failureOf(err error, before *failure) *failure {
	f := &failure{ReasonKernel, err.Error(), time.Now()}
	if reconciler.IsGone(err) {
		f.reason = ReasonGone
	}
	if len(f.message) > maxErrorBytes {
		f.message = f.message[:maxErrorBytes] + "…"
	}
	if before != nil {
		f.since = before.since
	}
	return f
}
