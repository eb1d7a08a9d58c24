package informers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// component is the name under which Events are published.
const component = "multi-networkpolicy-nftables"

const (
	eventBacklog  = 256
	eventAttempts = 5
	eventPause    = time.Second // doubles with every attempt
	eventMessage  = 1024        // the API server refuses longer ones
	eventName     = 253 - 17    // leaves room for the digest
)

// Events publishes Warning Events through the API server, in the background. An Event's name is made of what it says,
// so that the agents of all nodes, which all find the same fault in the same policy, make one Event of it.
type Events struct {
	client typedcorev1.EventsGetter
	node   string
	queue  chan *corev1.Event
	pause  time.Duration
}

// NewEvents makes an EventSink; Run publishes.
func NewEvents(client typedcorev1.EventsGetter, node string) *Events {
	return &Events{client: client, node: node, queue: make(chan *corev1.Event, eventBacklog), pause: eventPause}
}

// Warn queues a Warning Event. When the backlog is full it is dropped: the log has it too.
func (e *Events) Warn(about Subject, reason, message string) {
	message = strings.ToValidUTF8(message[:min(len(message), eventMessage)], "")
	digest := sha256.Sum256([]byte(string(about.UID) + "\x00" + reason + "\x00" + message))
	now := metav1.Now()
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: about.Namespace,
			Name:      about.Name[:min(len(about.Name), eventName)] + "." + hex.EncodeToString(digest[:8]),
		},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: about.APIVersion, Kind: about.Kind, Namespace: about.Namespace, Name: about.Name, UID: about.UID,
		},
		Type:                corev1.EventTypeWarning,
		Reason:              reason,
		Message:             message,
		Source:              corev1.EventSource{Component: component},
		ReportingController: component,
		ReportingInstance:   e.node,
		FirstTimestamp:      now,
		LastTimestamp:       now,
		Count:               1,
	}
	select {
	case e.queue <- event:
	default:
	}
}

// Run publishes until the context ends.
func (e *Events) Run(ctx context.Context) {
	for {
		select {
		case event := <-e.queue:
			if err := e.publish(ctx, event); err != nil && ctx.Err() == nil {
				logr.FromContextOrDiscard(ctx).Error(err, "An Event is not published", "event", event.Name,
					"namespace", event.Namespace)
			}
		case <-ctx.Done():
			return
		}
	}
}

// publish tries a few times: the API server may be away, but what it refuses it would refuse again.
func (e *Events) publish(ctx context.Context, event *corev1.Event) error {
	pause := e.pause
	for attempt := 1; ; attempt++ {
		_, err := e.client.Events(event.Namespace).Create(ctx, event, metav1.CreateOptions{})
		switch {
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
