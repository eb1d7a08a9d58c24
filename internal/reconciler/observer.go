package reconciler

import (
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// Observer hears how pods fare. Its methods must not block.
type Observer interface {
	Queued(pods []cache.PodID)           // their tables may have changed; the list may be empty
	Started(pod cache.PodID)             // a worker has taken the pod
	Applied(target cache.Target)         // the kernel has acknowledged the ruleset
	Finished(pod cache.PodID, err error) // the worker is done with the pod
}

// Unobserved is an Observer that ignores everything.
type Unobserved struct{}

// Queued implements Observer.
func (Unobserved) Queued([]cache.PodID) {}

// Started implements Observer.
func (Unobserved) Started(cache.PodID) {}

// Applied implements Observer.
func (Unobserved) Applied(cache.Target) {}

// Finished implements Observer.
func (Unobserved) Finished(cache.PodID, error) {}
