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

// EventSink publishes Warning Events. *Events implements it. Warn must not block. message is a sentence for users.
type EventSink interface {
	Warn(about Subject, reason policy.Reason, message string)
}

// Subject is the object that an Event or a log line is about. UID ties an Event to this object, and not to a later
// object with the same name; kubectl describe shows Events by it.
type Subject struct {
	APIVersion string
	Kind       string
	types.NamespacedName
	UID types.UID
}

// String returns namespace/name, or only the name for an object without a namespace.
func (s Subject) String() string { return strings.TrimPrefix(s.NamespacedName.String(), "/") }

// Budgets of reports. They keep an object with ever-changing problems, or a namespace full of such objects, from flooding the log
// and the API server. A report over budget waits until the budget allows it, and then has the latest problems of the object.
const (
	objectReports    = 4                // for an object at once
	namespaceReports = 40               // for a namespace at once
	reportInterval   = 15 * time.Second // refills a report of an object, and ten reports of a namespace
	flushInterval    = 5 * time.Second  // between two checks of the waiting reports
)

// Reporter publishes the problems of objects: a log line and a Warning Event for each problem. It publishes the problems of an
// object again only when they change. It is safe for concurrent use.
type Reporter struct {
	events EventSink                       // nil: log only
	reason func(kind string) policy.Reason // reason of the Events about a kind
	budget *budget.Budget

	// mu guards the fields below.
	mu   sync.Mutex
	last map[subjectKey]*report
	// suppressed counts the reports over budget, for metrics.
	suppressed uint64
}

// subjectKey has no UID: an object that is made anew under the same name takes over the report, and its problems are
// published again.
type subjectKey struct {
	kind string
	name types.NamespacedName
}

// report has the latest problems of an object, and the problems that were published last.
type report struct {
	about        Subject
	problems     []policy.Problem
	published    []policy.Problem
	publishedUID types.UID
	suppressed   int // reports over budget since the last published report; 0: no report waits
}

// NewReporter returns a Reporter. If events is nil, it only logs.
func NewReporter(events EventSink) *Reporter { return newReporter(events, reason) }

func newReporter(events EventSink, reason func(string) policy.Reason) *Reporter {
	return &Reporter{
		events: events, reason: reason, last: map[subjectKey]*report{},
		budget: budget.New(objectReports, namespaceReports, reportInterval),
	}
}

// Report reports all current problems of an object. No problems end the earlier problems. The context carries the logger.
func (r *Reporter) Report(ctx context.Context, about Subject, problems []policy.Problem) {
	key := subjectKey{about.Kind, about.NamespacedName}
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.last[key]
	// An object without problems, now and before, needs no entry.
	if last == nil {
		if len(problems) == 0 {
			return
		}
		last = &report{}
		r.last[key] = last
	}
	last.about, last.problems = about, problems
	// With an exhausted budget, the report waits for flush.
	if !r.publish(ctx, key, last) {
		last.suppressed++
		r.suppressed++
	}
}

// publish logs and publishes a report, unless it was published already. It returns false if the budget does not allow it. The
// caller holds the lock.
func (r *Reporter) publish(ctx context.Context, key subjectKey, last *report) bool {
	about := last.about
	// Nothing new to say. A new UID is news, since Events belong to a UID.
	if slices.Equal(last.published, last.problems) && (about.UID == last.publishedUID || len(last.problems) == 0) {
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
	// Without problems, the end of the earlier problems is the report.
	if len(last.problems) == 0 {
		log.Info("The problems are gone")
		delete(r.last, key)
	}
	for _, p := range last.problems {
		log.Info("Problem found", "reason", r.reason(about.Kind), "field", p.Field, "problem", p.Message)
		if r.events != nil {
			r.events.Warn(about, r.reason(about.Kind), p.String())
		}
	}
	last.published, last.publishedUID, last.suppressed = last.problems, about.UID, 0
	return true
}

// Run publishes waiting reports when their budget allows it, until the context ends.
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

// flush tries to publish the reports that are over budget.
func (r *Reporter) flush(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, last := range r.last {
		if last.suppressed > 0 {
			r.publish(ctx, key, last)
		}
	}
}

// Suppressed returns the number of reports that were over budget at first.
func (r *Reporter) Suppressed() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.suppressed
}

// Forget drops the report of an object that is gone. It logs nothing: a deleted object is no repaired object.
func (r *Reporter) Forget(about Subject) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.last, subjectKey{about.Kind, about.NamespacedName})
}

// Retain drops the reports of all objects of a kind that do not exist.
func (r *Reporter) Retain(kind string, exists func(cache.Key) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.last {
		if key.kind == kind && !exists(key.name) {
			delete(r.last, key)
		}
	}
}

// reason returns the reason of Events about a kind. Of a pod, only the network status and the requested networks can be
// invalid.
func reason(kind string) policy.Reason {
	switch kind {
	case KindPod:
		return policy.InvalidNetworkStatus
	case KindNamespace:
		return policy.InvalidNamespace
	case KindNAD:
		return policy.InvalidNetworkAttachmentDefinition
	}
	return policy.InvalidMultiNetworkPolicy
}
