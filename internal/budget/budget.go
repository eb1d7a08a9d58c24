package budget

import (
	"sync"
	"sync/atomic"
	"time"
)

// Budget is a set of buckets. It is safe for concurrent use.
type Budget struct {
	object, namespace float64 // sizes of the buckets, tokens
	interval          time.Duration
	refused           atomic.Uint64

	mu         sync.Mutex
	objects    map[string]bucket
	namespaces map[string]bucket
	swept      time.Time
}

// namespaceFactor is how much faster than an object's bucket the bucket of a namespace fills.
const namespaceFactor = 10

// bucket holds tokens as of a time.
type bucket struct {
	tokens float64
	at     time.Time
}

// New returns a budget of so many tokens at once for an object and for a namespace. An object gets one more token each
// interval.
func New(object, namespace int, interval time.Duration) *Budget {
	return &Budget{
		object: float64(object), namespace: float64(namespace), interval: interval,
		objects: map[string]bucket{}, namespaces: map[string]bucket{}, swept: time.Now(),
	}
}

// Allow takes a token of the object and a token of its namespace. It is false, and takes none, when either is out.
func (b *Budget) Allow(object, namespace string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.sweep(now)
	o := b.refill(b.objects, object, b.object, 1, now)
	n := b.refill(b.namespaces, namespace, b.namespace, namespaceFactor, now)
	if o.tokens < 1 || n.tokens < 1 {
		b.refused.Add(1)
		return false
	}
	o.tokens--
	n.tokens--
	b.objects[object], b.namespaces[namespace] = o, n
	return true
}

// Refused returns how often Allow was false.
func (b *Budget) Refused() uint64 { return b.refused.Load() }

// refill returns the bucket of a key as of now. A clock that was set back adds nothing.
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

// sweep forgets the buckets that are full, now and then.
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
