package budget

import (
	"sync"
	"sync/atomic"
	"time"
)

// Budget holds the token buckets of objects and namespaces: an object may spend a few tokens at once and then some over
// time, and so may all objects of a namespace together. It is safe for concurrent use.
type Budget struct {
	object, namespace float64       // sizes of the buckets, tokens
	interval          time.Duration // an object gets a token in this time, a namespace namespaceFactor tokens
	refused           atomic.Uint64 // refused calls

	// mu guards the fields below. A key without a bucket has a full bucket, so idle keys take no memory.
	mu         sync.Mutex
	objects    map[string]bucket
	namespaces map[string]bucket
	swept      time.Time // last deletion of full buckets
}

// namespaceFactor is the rate of a namespace's bucket relative to an object's.
const namespaceFactor = 10

// bucket is the number of tokens at a time. Tokens are added when the bucket is read, not by a timer.
type bucket struct {
	tokens float64
	at     time.Time
}

// New returns a budget. object and namespace are the sizes of the buckets: the maximum number of tokens at once. An
// object gets a new token each interval, and a namespace ten. The keys may be anything that the caller names
// consistently.
func New(object, namespace int, interval time.Duration) *Budget {
	return &Budget{
		object: float64(object), namespace: float64(namespace), interval: interval,
		objects: map[string]bucket{}, namespaces: map[string]bucket{}, swept: time.Now(),
	}
}

// Allow takes a token of the object and a token of its namespace. If either bucket is empty, it takes no token and returns false.
func (b *Budget) Allow(object, namespace string) bool { return b.Take(object, namespace, 1) }

// Take takes several tokens of each bucket, or none if either bucket has fewer. tokens may be a fraction. A Take of
// more tokens than a bucket can hold never succeeds.
func (b *Budget) Take(object, namespace string, tokens float64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.sweep(now)
	o := b.refill(b.objects, object, b.object, 1, now)
	n := b.refill(b.namespaces, namespace, b.namespace, namespaceFactor, now)
	if o.tokens < tokens || n.tokens < tokens {
		b.refused.Add(1)
		return false
	}
	o.tokens -= tokens
	n.tokens -= tokens
	b.objects[object], b.namespaces[namespace] = o, n
	return true
}

// Refused returns the number of calls of Allow and Take that returned false.
func (b *Budget) Refused() uint64 { return b.refused.Load() }

// refill returns the bucket of a key at the time now, without a change of the map. It adds nothing if now is before the bucket's
// time.
func (b *Budget) refill(buckets map[string]bucket, key string, size, factor float64, now time.Time) bucket {
	k, ok := buckets[key]
	if !ok {
		return bucket{size, now}
	}
	if passed := now.Sub(k.at); passed > 0 {
		k.tokens = min(size, k.tokens+factor*float64(passed)/float64(b.interval))
	}
	k.at = now
	return k
}

// sweep deletes full buckets, at most once in an interval. A missing bucket counts as full.
func (b *Budget) sweep(now time.Time) {
	if now.Sub(b.swept) < b.interval {
		return
	}
	b.swept = now
	for key := range b.objects {
		if b.refill(b.objects, key, b.object, 1, now).tokens >= b.object {
			delete(b.objects, key)
		}
	}
	for key := range b.namespaces {
		if b.refill(b.namespaces, key, b.namespace, namespaceFactor, now).tokens >= b.namespace {
			delete(b.namespaces, key)
		}
	}
}
