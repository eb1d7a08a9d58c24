package informers

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/watchlist"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/outage"
)

var (
	errHungUp   = errors.New("the server hung up")
	errSilent   = errors.New("the watch is open, but silent")
	errNeverNew = errors.New("the server has no recent version")
)

// The API server sends a bookmark about every minute to a watch without events. A watch without either is broken
// somewhere on its way, and would hide every change until it ends by itself.
const silenceLimit = 3 * time.Minute

const forever = time.Duration(math.MaxInt64)

const (
	answerLimit = 30 * time.Second // for the first byte of a watch
	listLimit   = 5 * time.Minute  // for a whole list
)

// observed is a list and watch that tells an outage how it fares. The reflector's own error handler does not see all: it
// is not called for a watch that is refused while the API server restarts, nor for the success that ends an outage.
type observed struct {
	toolscache.ListerWatcherWithContext
	wrapped toolscache.ListerWatcher
	outage  *outage.Outage
	silence time.Duration // after which a watch is ended
	suspect atomic.Bool   // the last watch opened and failed: only an event shows that the next one works
}

func observe(lw toolscache.ListerWatcher, o *outage.Outage, silence time.Duration) *observed {
	return &observed{ListerWatcherWithContext: toolscache.ToListerWatcherWithContext(lw), wrapped: lw, outage: o, silence: silence}
}

// List implements toolscache.ListerWatcher. Reflectors do not call it.
func (o *observed) List(opts metav1.ListOptions) (runtime.Object, error) {
	return o.ListWithContext(context.Background(), opts)
}

// Watch implements toolscache.ListerWatcher. Reflectors do not call it.
func (o *observed) Watch(opts metav1.ListOptions) (watch.Interface, error) {
	return o.WatchWithContext(context.Background(), opts)
}

// ListWithContext lists. A list that works ends no outage: the watch may still fail.
func (o *observed) ListWithContext(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
	limited, cancel := context.WithTimeout(ctx, listLimit)
	defer cancel()
	list, err := o.ListerWatcherWithContext.ListWithContext(limited, opts)
	if err != nil {
		o.failed(ctx, err)
	}
	return list, err
}

// WatchWithContext starts a watch, and ends it when it falls silent.
func (o *observed) WatchWithContext(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	watching, cancel := context.WithCancel(ctx)
	limit := time.AfterFunc(answerLimit, cancel)
	w, err := o.ListerWatcherWithContext.WatchWithContext(watching, opts)
	if !limit.Stop() && err != nil && ctx.Err() == nil {
		err = errors.Join(errSilent, err)
	}
	if isExpired(err) && opts.ResourceVersion == "" {
		err = fmt.Errorf("%w: %s", errNeverNew, err) //nolint:errorlint // a reflector asks again at once after an expired version
	}
	switch {
	case opts.SendInitialEvents != nil && apierrors.IsInvalid(err): // an older API server, which is asked for a list next
	case isExpired(err): // the version is too old to go on from: the same
	case err != nil:
		o.failed(ctx, err)
	case isHungUp(w):
		o.failed(ctx, errHungUp)
	case !o.suspect.Load():
		o.outage.Works()
	}
	if err != nil || isHungUp(w) {
		cancel()
		return w, err
	}
	return newGuardedWatch(ctx, w, o, cancel), nil
}

// IsWatchListSemanticsUnSupported asks the wrapped source.
func (o *observed) IsWatchListSemanticsUnSupported() bool {
	return watchlist.DoesClientNotSupportWatchListSemantics(o.wrapped)
}

// failed notes a failure, unless the context has ended.
func (o *observed) failed(ctx context.Context, err error) {
	if ctx.Err() == nil {
		o.outage.Failed(err)
	}
}

// broke notes that an open watch has failed.
func (o *observed) broke(ctx context.Context, err error) {
	o.suspect.Store(true)
	o.failed(ctx, err)
}

// heard notes an event of a watch.
func (o *observed) heard(ctx context.Context, e watch.Event) {
	if e.Type != watch.Error {
		if o.suspect.Swap(false) {
			o.outage.Works()
		}
		return
	}
	if err := apierrors.FromObject(e.Object); !isExpired(err) {
		o.broke(ctx, err)
	}
}

// isExpired reports whether the API server no longer has the version that a watch or a list should start from.
func isExpired(err error) bool { return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) }

var emptyWatch = reflect.TypeOf(watch.NewEmptyWatch())

// isHungUp reports whether the server hung up instead of an answer: clients make an empty watch of that.
func isHungUp(w watch.Interface) bool { return reflect.TypeOf(w) == emptyWatch }

// guardedWatch is a watch that ends when nothing comes for a while.
type guardedWatch struct {
	watch.Interface
	observed *observed
	events   chan watch.Event
	done     chan struct{}
	once     sync.Once
	cancel   context.CancelFunc
}

func newGuardedWatch(ctx context.Context, w watch.Interface, o *observed, cancel context.CancelFunc) *guardedWatch {
	g := &guardedWatch{Interface: w, observed: o, events: make(chan watch.Event), done: make(chan struct{}), cancel: cancel}
	go g.run(ctx)
	return g
}

func (g *guardedWatch) run(ctx context.Context) {
	defer close(g.events)
	defer g.drain()
	timer := time.NewTimer(g.observed.silence)
	defer timer.Stop()
	for empty := true; ; empty = false {
		select {
		case e, ok := <-g.Interface.ResultChan():
			if !ok {
				if empty {
					g.observed.broke(ctx, errHungUp)
				}
				return
			}
			g.observed.heard(ctx, e)
			select {
			case g.events <- e:
			case <-g.done:
				return
			}
			timer.Reset(g.observed.silence)
		case <-timer.C:
			g.observed.broke(ctx, errSilent)
			return
		case <-g.done:
			return
		}
	}
}

// drain ends the wrapped watch. A watch that converts events waits until somebody takes the last one.
func (g *guardedWatch) drain() {
	g.Stop()
	for range g.Interface.ResultChan() { // the events come too late
	}
}

// Stop ends the watch.
func (g *guardedWatch) Stop() {
	g.once.Do(func() {
		close(g.done)
		g.cancel()
		g.Interface.Stop()
	})
}

// ResultChan is closed when the watch ends.
func (g *guardedWatch) ResultChan() <-chan watch.Event { return g.events }
