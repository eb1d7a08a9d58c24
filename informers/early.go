package informers

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/watchlist"
)

// early wraps a list and watch, and gives the initial events of a watch to the feed while they arrive. A reflector would collect
// all objects before it passes them on, which takes more memory than the cache. The reflector gets an empty record in their place,
// from which it learns which objects exist.
type early struct {
	toolscache.ListerWatcherWithContext
	wrapped toolscache.ListerWatcher
	feed    *feed
}

func newEarly(lw toolscache.ListerWatcher, f *feed) *early {
	return &early{toolscache.ToListerWatcherWithContext(lw), lw, f}
}

// WatchWithContext starts a watch.
func (e *early) WatchWithContext(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	w, err := e.ListerWatcherWithContext.WatchWithContext(ctx, opts)
	if err != nil || opts.SendInitialEvents == nil || !*opts.SendInitialEvents || isHungUp(w) {
		return w, err
	}
	isInitial, count := true, 0
	return watch.Filter(w, func(event watch.Event) (watch.Event, bool) {
		r, ok := event.Object.(*record)
		switch {
		case !ok || !isInitial:
		case event.Type == watch.Bookmark:
			isInitial = !r.end
		case event.Type == watch.Added || event.Type == watch.Modified:
			// The reflector does not call the feed before the last initial event.
			e.feed.upsert(r)
			if count++; count%notifyEvery == 0 {
				e.feed.in.config.Notify()
			}
			event.Object = r.taken()
		}
		return event, true
	}), nil
}

// List implements toolscache.ListerWatcher. Reflectors do not call it.
func (e *early) List(opts metav1.ListOptions) (runtime.Object, error) {
	return e.ListWithContext(context.Background(), opts)
}

// Watch implements toolscache.ListerWatcher. Reflectors do not call it.
func (e *early) Watch(opts metav1.ListOptions) (watch.Interface, error) {
	return e.WatchWithContext(context.Background(), opts)
}

// IsWatchListSemanticsUnSupported implements an optional interface of reflectors: it returns the answer of the wrapped source.
func (e *early) IsWatchListSemanticsUnSupported() bool {
	return watchlist.DoesClientNotSupportWatchListSemantics(e.wrapped)
}
