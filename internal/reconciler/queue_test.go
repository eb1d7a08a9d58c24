package reconciler

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

func podOf(namespace string, i int) cache.PodID {
	name := fmt.Sprint("pod-", i)
	return cache.PodID{Key: cache.Key{Namespace: namespace, Name: name}, UID: types.UID(namespace + name)}
}

// crew is workers that take pods until the queue is closed, each pod for a time.
type crew struct {
	queue *queue
	cost  func(cache.PodID) time.Duration
	taken chan cache.PodID
}

func newCrew(q *queue, workers int, cost func(cache.PodID) time.Duration) *crew {
	c := &crew{q, cost, make(chan cache.PodID, 10_000)}
	for range workers {
		go func() {
			for {
				pod, ok := q.get()
				if !ok {
					return
				}
				c.taken <- pod
				d := c.cost(pod)
				time.Sleep(d)
				q.done(pod, d)
			}
		}()
	}
	return c
}

// order waits until no pod is ready, and returns the pods that were taken since the last call.
func (c *crew) order() (order []cache.PodID) {
	for {
		synctest.Wait()
		c.queue.mu.Lock()
		idle := len(c.queue.working) == 0 && len(c.queue.waiting) == 0
		c.queue.mu.Unlock()
		if idle {
			break
		}
		time.Sleep(time.Millisecond)
	}
	for len(c.taken) > 0 {
		order = append(order, <-c.taken)
	}
	return order
}

// A pod of a quiet namespace does not wait for the many pods of a busy namespace.
func TestFairNamespaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(2)
		defer func() { q.close(); synctest.Wait() }()
		for i := range 500 {
			q.add(podOf("busy", i))
		}
		q.add(podOf("quiet", 0))
		order := newCrew(q, 1, func(cache.PodID) time.Duration { return 10 * time.Millisecond }).order()
		if len(order) != 501 {
			t.Fatalf("%d pods, want 501", len(order))
		}
		for i, pod := range order {
			if pod.Namespace == "quiet" {
				if i > 1 {
					t.Errorf("the quiet namespace is number %d", i)
				}
				return
			}
		}
	})
}

// Turns go by the time that pods use, not by their number: a namespace of slow pods waits for a namespace of quick pods.
func TestFairTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(2)
		defer func() { q.close(); synctest.Wait() }()
		for i := range 20 {
			q.add(podOf("slow", i))
			q.add(podOf("quick", i))
		}
		order := newCrew(q, 1, func(p cache.PodID) time.Duration {
			if p.Namespace == "slow" {
				return 100 * time.Millisecond
			}
			return time.Millisecond
		}).order()
		quick := 0
		for i, pod := range order {
			if pod.Namespace == "quick" {
				if quick++; quick == 20 && i > 22 {
					t.Errorf("the quick pods are through after %d pods", i)
				}
			}
		}
	})
}

// A namespace never occupies all workers.
func TestWorkersOfANamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(2)
		defer func() { q.close(); synctest.Wait() }()
		for i := range 10 {
			q.add(podOf("hanging", i))
		}
		for range 4 {
			go func() {
				if pod, ok := q.get(); ok && pod.Namespace == "hanging" {
					time.Sleep(time.Hour)
					q.done(pod, time.Hour)
				} else if ok {
					q.done(pod, 0)
				}
			}()
		}
		synctest.Wait()
		start := time.Now()
		q.add(podOf("victim", 0))
		synctest.Wait()
		q.mu.Lock()
		if len(q.working) != 2 || q.namespaces["victim"] != nil && len(q.namespaces["victim"].pods) > 0 {
			t.Errorf("%d pods are worked on, and the victim waits, %s later", len(q.working), time.Since(start))
		}
		q.mu.Unlock()
		time.Sleep(2 * time.Hour) // lets the workers end
	})
}

// A pod that keeps using more than its share waits longer and longer, and other pods do not notice.
func TestPodShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(2)
		defer func() { q.close(); synctest.Wait() }()
		hog, start, runs := podOf("a", 0), time.Now(), 0
		c := newCrew(q, 2, func(cache.PodID) time.Duration { return 2 * time.Second })
		for time.Since(start) < 10*time.Minute {
			q.add(hog)
			runs += len(c.order())
			time.Sleep(100 * time.Millisecond)
		}
		// A fifth of the time, and the credit at the start.
		if most := int(podShare*600/2) + 5; runs > most || runs < most/2 {
			t.Errorf("%d runs of 2 s in 10 min, want about %d", runs, most)
		}
		q.add(hog)
		if waiting, throttled := q.throttled.Load(), q.throttledTotal.Load(); waiting != 1 || throttled == 0 {
			t.Errorf("%d pods wait for their share, %d times", waiting, throttled)
		}
		q.add(podOf("a", 1))
		if order := c.order(); len(order) != 1 || order[0] == hog {
			t.Errorf("another pod of the namespace: %v", order)
		}
		time.Sleep(time.Minute)
		if order := c.order(); len(order) != 1 || order[0] != hog {
			t.Errorf("nothing is lost: %v", order)
		}
	})
}

// A pod is with one worker at a time, and changes meanwhile are a further turn.
func TestQueueHoldsAPodOnce(t *testing.T) {
	q := newQueue(2)
	pod := podOf("a", 0)
	q.add(pod)
	q.add(pod)
	got, _ := q.get()
	q.add(pod)
	q.add(pod)
	if len(q.namespaces["a"].pods) != 0 {
		t.Error("a pod that is worked on waits for another worker")
	}
	q.done(got, 0)
	if len(q.namespaces["a"].pods) != 1 {
		t.Errorf("%d turns, want one more", len(q.namespaces["a"].pods))
	}
	again, _ := q.get()
	q.done(again, 0)
	if len(q.namespaces) != 0 || len(q.waiting) != 0 || len(q.accounts) != 0 {
		t.Errorf("left: %+v", q)
	}
	q.addAfter(pod, time.Hour)
	q.add(pod)
	if len(q.delayed) != 0 {
		t.Error("a pod that comes by itself still has a timer")
	}
	q.close()
	if _, ok := q.get(); ok {
		t.Error("a closed queue hands out a pod")
	}
}
