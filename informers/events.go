package informers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/budget"
)

// component is the name under which Events are published.
const component = "multi-networkpolicy-nftables"

// Bounds of the queue, of the attempts to publish an Event, and of its parts.
const (
	eventBacklog          = 2048 // queued Events of all namespaces
	namespaceEventBacklog = 64   // queued Events of a namespace
	eventAttempts         = 5
	eventPause            = time.Second // after the first attempt; doubles with every attempt
	eventMessage          = 1024        // bytes; the API server refuses longer messages
	eventName             = 253 - 17    // bytes of the object's name; leaves room for the digest
)

// Budgets of Events: the number for an object and for a namespace at once. The budgets refill over time, see package budget.
const (
	objectEvents    = 30
	namespaceEvents = 200
	eventInterval   = 10 * time.Second
)

// EventCreator creates an Event in the API server. *Core implements it.
type EventCreator interface {
	CreateEvent(ctx context.Context, event *corev1.Event) error
}

// Events publishes Warning Events through the API server, in the background. The name of an Event contains a digest of its
// content. So when the agents of all nodes find the same fault in a policy, they create the same Event, and the API server keeps
// the first.
//
// Namespaces take turns, and each has a budget. So a tenant with many Events does not delay the Events of other tenants. An Event
// over budget is dropped and counted; the log has its content too. The methods are safe for concurrent use.
type Events struct {
	client  EventCreator
	node    string
	pause   time.Duration // first pause between attempts; shorter in tests
	budget  *budget.Budget
	dropped atomic.Uint64
	// added has a buffer of 1 and wakes Run. A single wake-up stands for any number of Events.
	added chan struct{}

	// mu guards the fields below.
	mu      sync.Mutex
	waiting map[string][]*corev1.Event // by namespace
	turns   []string                   // namespaces with queued Events, the next first
	total   int                        // queued Events of all namespaces
}

// NewEvents returns Events that queue and publish nothing until Run.
func NewEvents(client EventCreator, node string) *Events {
	return &Events{
		client: client, node: node, pause: eventPause, budget: budget.New(objectEvents, namespaceEvents, eventInterval),
		added: make(chan struct{}, 1), waiting: map[string][]*corev1.Event{},
	}
}

// Dropped returns the number of Events that were not queued or could not be published.
func (e *Events) Dropped() uint64 { return e.dropped.Load() }

// Warn queues a Warning Event. It drops the Event if the object or its namespace is over budget, or if a queue is full. It never
// blocks.
func (e *Events) Warn(about Subject, reason policy.Reason, message string) {
	// The budget comes first, so that an object beyond its budget takes no place in the queue.
	if !e.budget.Allow(about.Kind+"/"+about.String(), about.Namespace) || !e.add(e.event(about, reason, message)) {
		e.dropped.Add(1)
		return
	}
	select {
	case e.added <- struct{}{}:
	default:
	}
}

// event returns an Event about an object. Its name is a digest of UID, reason and message, without the node.
func (e *Events) event(about Subject, reason policy.Reason, message string) *corev1.Event {
	// The cut may split a character; ToValidUTF8 removes the rest of it.
	message = strings.ToValidUTF8(message[:min(len(message), eventMessage)], "")
	digest := sha256.Sum256([]byte(string(about.UID) + "\x00" + string(reason) + "\x00" + message))
	now := metav1.Now()
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: about.Namespace,
			Name:      about.Name[:min(len(about.Name), eventName)] + "." + hex.EncodeToString(digest[:8]),
		},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: about.APIVersion, Kind: about.Kind, Namespace: about.Namespace, Name: about.Name, UID: about.UID,
		},
		Type:                corev1.EventTypeWarning,
		Reason:              string(reason),
		Message:             message,
		Source:              corev1.EventSource{Component: component},
		ReportingController: component,
		ReportingInstance:   e.node,
		FirstTimestamp:      now,
		LastTimestamp:       now,
		Count:               1,
	}
}

// add queues an Event. It returns false if the queue is full.
func (e *Events) add(event *corev1.Event) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	waiting := e.waiting[event.Namespace]
	if e.total >= eventBacklog || len(waiting) >= namespaceEventBacklog {
		return false
	}
	if len(waiting) == 0 {
		e.turns = append(e.turns, event.Namespace)
	}
	e.waiting[event.Namespace] = append(waiting, event)
	e.total++
	return true
}

// next removes and returns the oldest Event of the namespace whose turn it is, or returns nil if no Event is queued.
func (e *Events) next() *corev1.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.turns) == 0 {
		return nil
	}
	namespace := e.turns[0]
	e.turns = e.turns[1:]
	waiting := e.waiting[namespace]
	if len(waiting) == 1 {
		delete(e.waiting, namespace)
	} else {
		// The namespace goes to the end of the line.
		e.waiting[namespace] = waiting[1:]
		e.turns = append(e.turns, namespace)
	}
	e.total--
	return waiting[0]
}

// Run publishes queued Events until the context ends.
func (e *Events) Run(ctx context.Context) {
	for {
		select {
		case <-e.added:
		case <-ctx.Done():
			return
		}
		// A wake-up may stand for many Events, so Run empties the queue each time.
		for event := e.next(); event != nil && ctx.Err() == nil; event = e.next() {
			if err := e.publish(ctx, event); err != nil && ctx.Err() == nil {
				e.dropped.Add(1)
				logr.FromContextOrDiscard(ctx).Error(err, "An Event is not published", "event", event.Name, "namespace", event.Namespace)
			}
		}
	}
}

// publish creates an Event. It retries while the API server cannot be reached, but not if the API server refuses the Event, since
// it would refuse the same Event again.
func (e *Events) publish(ctx context.Context, event *corev1.Event) error {
	pause := e.pause
	for attempt := 1; ; attempt++ {
		err := e.client.CreateEvent(ctx, event)
		switch {
		// AlreadyExists is a success: the agent of another node found the same fault first.
		case err == nil, apierrors.IsAlreadyExists(err):
			return nil
		case attempt == eventAttempts, apierrors.IsForbidden(err), apierrors.IsInvalid(err), apierrors.IsNotFound(err):
			return fmt.Errorf("create Event: %w", err)
		}
		select {
		case <-time.After(pause):
			pause *= 2
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
