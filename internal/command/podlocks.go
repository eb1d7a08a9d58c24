package command

import (
	"sync"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// podLocks are a lock for each pod that somebody works on or waits for. The zero value is ready.
type podLocks struct {
	mu    sync.Mutex
	locks map[cache.Key]*podLock
}

type podLock struct {
	sync.Mutex
	users int
}

// lock waits until nobody else has the pod's lock.
func (l *podLocks) lock(key cache.Key) (unlock func()) {
	l.mu.Lock()
	if l.locks == nil {
		l.locks = map[cache.Key]*podLock{}
	}
	one := l.locks[key]
	if one == nil {
		one = &podLock{}
		l.locks[key] = one
	}
	one.users++
	l.mu.Unlock()
	one.Lock()
	return func() {
		one.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(l.locks, key)
		}
	}
}
