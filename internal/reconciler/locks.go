package reconciler

import (
	"sync"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// podLocks is a lock for each pod that somebody works on or waits for. The zero value is ready.
type podLocks struct {
	mu    sync.Mutex
	locks map[cache.PodID]*podLock
}

type podLock struct {
	sync.Mutex
	users int
}

// lock waits until nobody else has the pod's lock.
func (l *podLocks) lock(pod cache.PodID) (unlock func()) {
	p := l.use(pod)
	p.Lock()
	return func() {
		p.Unlock()
		l.release(pod, p)
	}
}

// tryLock is false when somebody else has the pod's lock.
func (l *podLocks) tryLock(pod cache.PodID) (unlock func(), ok bool) {
	p := l.use(pod)
	if !p.TryLock() {
		l.release(pod, p)
		return nil, false
	}
	return func() {
		p.Unlock()
		l.release(pod, p)
	}, true
}

func (l *podLocks) use(pod cache.PodID) *podLock {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.locks == nil {
		l.locks = map[cache.PodID]*podLock{}
	}
	p := l.locks[pod]
	if p == nil {
		p = &podLock{}
		l.locks[pod] = p
	}
	p.users++
	return p
}

func (l *podLocks) release(pod cache.PodID, p *podLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.users--; p.users == 0 {
		delete(l.locks, pod)
	}
}
