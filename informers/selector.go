package informers

import (
	"context"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Field selectors for pods. An agent needs no pod that has ended, since such a pod has no network any more. With the selector, the
// API server sends a pod that ends as deleted. Nor does an agent need pods on the host's network: they have no secondary network.
const (
	unfinished  = "status.phase!=" + string(corev1.PodSucceeded) + ",status.phase!=" + string(corev1.PodFailed)
	withNetwork = unfinished + ",spec.hostNetwork=false"
)

// fieldSelector is a field selector for all lists and watches of a client. API servers before Kubernetes 1.28 refuse the field
// spec.hostNetwork, so the selector falls back to another that every API server knows.
type fieldSelector struct {
	best, known string
	isRefused   atomic.Bool
}

// ask makes a request with the selector. It repeats the request with the other selector if the API server refuses the first.
func ask[T any](ctx context.Context, s *fieldSelector, o metav1.ListOptions, request func(context.Context, metav1.ListOptions) (T, error)) (T, error) {
	o.FieldSelector = s.best
	if s.isRefused.Load() {
		o.FieldSelector = s.known
	}
	answer, err := request(ctx, o)
	if apierrors.IsBadRequest(err) && o.FieldSelector != s.known {
		s.isRefused.Store(true)
		o.FieldSelector = s.known
		return request(ctx, o)
	}
	return answer, err
}
