package informers

import (
	"context"
	"reflect"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// EventSink publishes a Warning Event about an object. It must not block.
type EventSink interface {
	Warn(about Subject, reason, message string)
}

// Subject is the object that an Event or a log line is about.
type Subject struct {
	APIVersion string
	Kind       string
	types.NamespacedName
	UID types.UID
}

// Reporter says what is wrong with objects: a log line and a Warning Event for each problem, once, until the object's
// problems change. It is safe for concurrent use.
type Reporter struct {
	events EventSink // nil: log only
	reason func(kind string) string

	mu   sync.Mutex
	last map[subjectKey]report
}

type subjectKey struct {
	kind string
	name types.NamespacedName
}

type report struct {
	uid      types.UID
	problems []cache.Problem
}

// NewReporter makes one; events may be nil.
func NewReporter(events EventSink) *Reporter {
	return &Reporter{events: events, reason: reason, last: map[subjectKey]report{}}
}

// Report takes all problems that an object has now, none when it is as it should be.
func (r *Reporter) Report(ctx context.Context, about Subject, problems []cache.Problem) {
	key := subjectKey{about.Kind, about.NamespacedName}
	now := report{about.UID, problems}
	r.mu.Lock()
	last, known := r.last[key]
	if len(problems) > 0 {
		r.last[key] = now
	} else {
		delete(r.last, key)
	}
	r.mu.Unlock()
	if !known && len(problems) == 0 || known && reflect.DeepEqual(last, now) {
		return
	}
	log := logr.FromContextOrDiscard(ctx).WithValues("kind", about.Kind, "object", about.String())
	if len(problems) == 0 {
		log.Info("The problems are gone")
	}
	for _, p := range problems {
		log.Info("Problem: what the field would allow is not allowed", "field", p.Field, "problem", p.Message)
		if r.events != nil {
			r.events.Warn(about, r.reason(about.Kind), p.String())
		}
	}
}

// Forget drops what is known of an object that is gone.
func (r *Reporter) Forget(about Subject) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.last, subjectKey{about.Kind, about.NamespacedName})
}

// String is namespace/name, or just the name.
func (s Subject) String() string { return strings.TrimPrefix(s.NamespacedName.String(), "/") }

// reason is the machine-readable word of an Event.
func reason(kind string) string {
	if kind == kindPod {
		return "InvalidNetworkStatus"
	}
	return "Invalid" + kind
}
