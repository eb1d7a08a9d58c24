package conformance

import (
	"maps"
	"sync"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// Tracker observes informers, and knows which version of each object has reached the sink. An agent's Settled compares
// it with [Server.Versions]. Its methods may be called concurrently.
type Tracker struct {
	informers.Unobserved

	mu       sync.Mutex // guards versions
	versions map[oracle.Ref]string
}

// NewTracker returns the tracker of an empty sink.
func NewTracker() *Tracker { return &Tracker{versions: map[oracle.Ref]string{}} }

// Has reports whether the sink has exactly these versions of objects.
// An object that is missing, or that should be gone, makes it false.
func (t *Tracker) Has(versions map[oracle.Ref]string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Equal(t.versions, versions)
}

// Taken implements informers.Observer: the sink has got a version of an object.
func (t *Tracker) Taken(r informers.Receipt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.versions[oracle.Ref{Kind: r.Kind, Key: r.Key}] = r.Version
}

// Gone implements informers.Observer: the sink has got the deletion of an object.
func (t *Tracker) Gone(kind string, key cache.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.versions, oracle.Ref{Kind: kind, Key: key})
}
