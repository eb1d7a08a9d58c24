package informers

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/budget"
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

// String returns namespace/name, or just the name.
func (s Subject) String() string { return strings.TrimPrefix(s.NamespacedName.String(), "/") }

// Budgets of reports. An object whose problems change all the time, and a namespace full of such objects, fill neither
// the log nor the API server: a report over budget waits until the budget allows it, and then tells the latest problems.
const (
	objectReports    = 4 // at once, of one object
	namespaceReports = 40
	reportInterval   = 15 * time.Second // one more report of an object; of a namespace ten times as often
	flushInterval    = 5 * time.Second  // between looks at the reports that wait
)

// Reporter tells the problems of objects: a log line and a Warning Event for each problem, once, until the problems of the
// object change. It is safe for concurrent use.
type Reporter struct {
	events EventSink // nil: log only
	reason func(kind string) string
	budget *budget.Budget

	mu         sync.Mutex
	last       map[subjectKey]*report
	suppressed uint64
}

type subjectKey struct {
	kind string
	name types.NamespacedName
}

// report is the latest problems of an object, and those that were told.
type report struct {
	about      Subject
	problems   []policy.Problem
	told       []policy.Problem
	toldUID    types.UID
	suppressed int // reports that the budget did not allow, since the last that it did
}

// NewReporter returns a Reporter; events may be nil.
func NewReporter(events EventSink) *Reporter { return newReporter(events, reason) }

func newReporter(events EventSink, reason func(string) string) *Reporter {
	return &Reporter{
		events: events, reason: reason, last: map[subjectKey]*report{},
		budget: budget.New(objectReports, namespaceReports, reportInterval),
	}
}

// Report takes all problems that an object has now, none when it is as it should be.
func (r *Reporter) Report(ctx context.Context, about Subject, problems []policy.Problem) {
	key := subjectKey{about.Kind, about.NamespacedName}
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.last[key]
	if last == nil {
		if len(problems) == 0 {
			return
		}
		last = &report{}
		r.last[key] = last
	}
	last.about, last.problems = about, problems
	if !r.tell(ctx, key, last) {
		last.suppressed++
		r.suppressed++
	}
}

// tell logs and publishes a report, unless it says nothing new. It is false when the budget does not allow the report.
func (r *Reporter) tell(ctx context.Context, key subjectKey, last *report) bool {
	about := last.about
	if slices.Equal(last.told, last.problems) && (about.UID == last.toldUID || len(last.problems) == 0) {
		if len(last.problems) == 0 {
			delete(r.last, key)
		}
		return true
	}
	if !r.budget.Allow(about.Kind+"/"+about.String(), about.Namespace) {
		return false
	}
	log := logr.FromContextOrDiscard(ctx).WithValues("kind", about.Kind, "object", about.String())
	if last.suppressed > 0 {
		log = log.WithValues("suppressedReports", last.suppressed)
	}
	if len(last.problems) == 0 {
		log.Info("The problems are gone")
		delete(r.last, key)
	}
	for _, p := range last.problems {
		log.Info("Problem: the field allows nothing", "field", p.Field, "problem", p.Message)
		if r.events != nil {
			r.events.Warn(about, r.reason(about.Kind), p.String())
		}
	}
	last.told, last.toldUID, last.suppressed = last.problems, about.UID, 0
	return true
}

// Run tells the reports that waited for their budget, until the context ends.
func (r *Reporter) Run(ctx context.Context) {
	ticker := time.NewTicker(flushInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.flush(ctx)
		case <-ctx.Done():
			return
		}
	}
}

func (r *Reporter) flush(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, last := range r.last {
		if last.suppressed > 0 {
			r.tell(ctx, key, last)
		}
	}
}

// Suppressed returns the number of reports that the budget did not allow at first.
func (r *Reporter) Suppressed() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.suppressed
}

// Forget drops the reports of an object that is gone.
func (r *Reporter) Forget(about Subject) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.last, subjectKey{about.Kind, about.NamespacedName})
}

// Retain drops the reports of objects of a kind that are no longer there.
func (r *Reporter) Retain(kind string, exists func(cache.Key) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.last {
		if key.kind == kind && !exists(key.name) {
			delete(r.last, key)
		}
	}
}

// reason is the machine-readable word of an Event.
func reason(kind string) string {
	if kind == KindPod {
		return "InvalidNetworkStatus"
	}
	return "Invalid" + kind
}
