package reconciler

import (
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// Observer is notified of the steps of each pod, for metrics. Its methods must not block. They are called from several
// goroutines, but for a single pod in the order Started, Applied, Finished.
type Observer interface {
	// Queued gets pods whose tables may have changed since an event; the list may be empty.
	Queued(pods []cache.PodID, since time.Time)
	Started(pod cache.PodID)             // a worker has taken the pod
	Applied(target cache.Target)         // the kernel has acknowledged the tables of the target
	Finished(pod cache.PodID, err error) // the worker is done with the pod; nil: no work is left
}

// Unobserved is an Observer that ignores everything.
type Unobserved struct{}

// Queued implements Observer.
func (Unobserved) Queued([]cache.PodID, time.Time) {}

// Started implements Observer.
func (Unobserved) Started(cache.PodID) {}

// Applied implements Observer.
func (Unobserved) Applied(cache.Target) {}

// Finished implements Observer.
func (Unobserved) Finished(cache.PodID, error) {}
