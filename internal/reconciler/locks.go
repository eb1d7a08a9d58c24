package reconciler

import (
	"sync"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// podLocks is a lock for each pod that a goroutine works on or waits for. The zero value is ready. A lock exists only
// while it has users, so the memory does not grow with the pods that a node ever had.
type podLocks struct {
	mu    sync.Mutex
	locks map[cache.PodID]*podLock
}

// podLock is the lock of a pod. users counts its holder and all that wait, under podLocks.mu.
type podLock struct {
	sync.Mutex
	users int
}

// lock waits for the pod's lock. The caller must call unlock exactly once.
func (l *podLocks) lock(pod cache.PodID) (unlock func()) {
	p := l.use(pod)
	p.Lock()
	return func() {
		p.Unlock()
		l.release(pod, p)
	}
}

// tryLock returns false without waiting if another goroutine has the pod's lock.
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

// use returns the lock of a pod, and counts the caller as a user.
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

// release ends the use of a lock, and drops the lock after its last user.
func (l *podLocks) release(pod cache.PodID, p *podLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.users--; p.users == 0 {
		delete(l.locks, pod)
	}
}
