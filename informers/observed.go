package informers

import (
	"context"
	"errors"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/watchlist"
)

var (
	emptyWatch = reflect.TypeOf(watch.NewEmptyWatch())
	errHungUp  = errors.New("the server hangs up")
)

// observed is a list and watch that tells an outage how it fares. The reflector's own error handler does not see all:
// it is not called for a watch that is refused while the API server restarts, nor for the success that ends an outage.
type observed struct {
	toolscache.ListerWatcherWithContext
	wrapped toolscache.ListerWatcher
	outage  *outage
}

func observe(lw toolscache.ListerWatcher, o *outage) *observed {
	return &observed{ListerWatcherWithContext: toolscache.ToListerWatcherWithContext(lw), wrapped: lw, outage: o}
}

// List is ListWithContext without one; the interface wants it, reflectors do not call it.
func (o *observed) List(opts metav1.ListOptions) (runtime.Object, error) {
	return o.ListWithContext(context.Background(), opts)
}

// Watch is WatchWithContext without one; the interface wants it, reflectors do not call it.
func (o *observed) Watch(opts metav1.ListOptions) (watch.Interface, error) {
	return o.WatchWithContext(context.Background(), opts)
}

// ListWithContext lists.
func (o *observed) ListWithContext(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
	list, err := o.ListerWatcherWithContext.ListWithContext(ctx, opts)
	o.report(ctx, err)
	return list, err
}

// WatchWithContext starts a watch.
func (o *observed) WatchWithContext(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	w, err := o.ListerWatcherWithContext.WatchWithContext(ctx, opts)
	switch {
	case opts.SendInitialEvents != nil && apierrors.IsInvalid(err): // an older API server, which is asked for a list next
	case apierrors.IsResourceExpired(err), apierrors.IsGone(err): // too old a version to go on from: the same
	case err == nil && reflect.TypeOf(w) == emptyWatch: // what clients make of a server that hangs up
		o.report(ctx, errHungUp)
	default:
		o.report(ctx, err)
	}
	return w, err
}

// IsWatchListSemanticsUnSupported hands on what the wrapped one says.
func (o *observed) IsWatchListSemanticsUnSupported() bool {
	return watchlist.DoesClientNotSupportWatchListSemantics(o.wrapped)
}

func (o *observed) report(ctx context.Context, err error) {
	switch {
	case err == nil:
		o.outage.works()
	case ctx.Err() == nil:
		o.outage.failed(err)
	}
}
