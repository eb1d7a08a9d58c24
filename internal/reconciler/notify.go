package reconciler

import (
	"context"
	"time"
)

// crowdedPause is how long events are collected while workers occupy all cores. A further pod would share their time, and events that
// come together cost each pod a single turn.
const crowdedPause = 2 * time.Millisecond

// notice is the notice that pods may have changed, between Notify and the goroutine that queues them.
type notice struct {
	since  time.Time     // the oldest event that it is about; zero: there is none
	wake   chan struct{} // holds one element while the goroutine has something to do
	isOpen bool          // the goroutine runs
}

// Notify queues the pods whose tables may have changed. It does not block, and may be called before Run.
//
// While Run runs, another goroutine queues them. In a burst of events it takes the pods of many events together: an event for each of
// a thousand pods that join a group would otherwise queue all pods with this group a thousand times.
func (r *Reconciler) Notify() {
	r.mu.Lock()
	if r.notice.since.IsZero() {
		r.notice.since = time.Now()
	}
	isOpen := r.notice.isOpen
	r.mu.Unlock()
	if !isOpen {
		r.queueDirty()
		return
	}
	select {
	case r.notice.wake <- struct{}{}:
	default: // the goroutine is awake, or about to be
	}
}

// queueNotified queues pods after each Notify, until the context ends. From then on Notify queues them itself.
func (r *Reconciler) queueNotified(ctx context.Context) {
	for {
		select {
		case <-r.notice.wake:
		case <-ctx.Done():
			r.mu.Lock()
			r.notice.isOpen = false
			r.mu.Unlock()
			r.queueDirty()
			return
		}
		if r.queue.isCrowded() {
			time.Sleep(crowdedPause)
		}
		r.queueDirty()
	}
}

// queueDirty queues the dirty pods.
func (r *Reconciler) queueDirty() {
	r.mu.Lock() // before the pods are taken, so that Settled does not miss them
	since := r.notice.since
	r.notice.since = time.Time{}
	pods := r.targets.TakeDirty()
	for _, pod := range pods {
		r.outstanding[pod]++
	}
	r.mu.Unlock()
	if since.IsZero() { // the pods of an event whose Notify is still to come
		since = time.Now()
	}
	r.observer.Queued(pods, since)
	r.queue.addAll(pods)
}
