package conformance

import (
	"maps"
	"sync"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// Tracker observes informers and knows which version of each object the sink has.
type Tracker struct {
	informers.Unobserved

	mu       sync.Mutex
	versions map[Ref]string
}

// NewTracker returns a Tracker of an empty sink.
func NewTracker() *Tracker { return &Tracker{versions: map[Ref]string{}} }

// Has reports whether the sink has these versions and no other objects.
func (t *Tracker) Has(versions map[Ref]string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Equal(t.versions, versions)
}

// Taken implements informers.Observer.
func (t *Tracker) Taken(r informers.Receipt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.versions[Ref{r.Kind, r.Key}] = r.Version
}

// Gone implements informers.Observer.
func (t *Tracker) Gone(kind string, key cache.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.versions, Ref{kind, key})
}
