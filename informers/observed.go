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

// Causes of an outage beyond the errors of the API server.
var (
	errHungUp   = errors.New("the server hung up")
	errSilent   = errors.New("the watch is open, but silent")
	errNeverNew = errors.New("the server has no recent version")
)

// silenceLimit is the time without events and bookmarks after which a watch is restarted. The API server sends a bookmark about
// every minute. A watch without bookmarks is broken, for example by a dead connection, and would hide all changes.
const silenceLimit = 3 * time.Minute

// forever is a limit that no watch reaches, for sources without bookmarks.
const forever = time.Duration(math.MaxInt64)

// Timeouts of requests.
const (
	answerLimit = 30 * time.Second // until a watch starts
	listLimit   = 5 * time.Minute  // for a complete list
)

// observed wraps a list and watch, and reports failures and successes to an outage. The error handler of a reflector is not
// enough: the reflector does not call it when a watch is refused during a restart of the API server, nor when an outage ends.
type observed struct {
	// The embedded interface and wrapped are the same source: the reflector uses the first, and only wrapped shows
	// whether the source has initial events.
	toolscache.ListerWatcherWithContext
	wrapped toolscache.ListerWatcher
	outage  *outage.Outage
	// initial may replace the objects of a watch, see feed.takeInitial.
	initial func(watch.Interface) watch.Interface // wraps watches with initial events; nil: none
	silence time.Duration                         // limit for a watch without events
	suspect atomic.Bool                           // the last watch started and then failed, so only an event shows that the next watch works
}

// observe returns lw with reports to an outage.
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

// ListWithContext lists the objects. A successful list does not end an outage, since the watch may still fail.
func (o *observed) ListWithContext(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
	limited, cancel := context.WithTimeout(ctx, listLimit)
	defer cancel()
	list, err := o.ListerWatcherWithContext.ListWithContext(limited, opts)
	if err != nil {
		o.failed(ctx, err)
	}
	return list, err
}

// WatchWithContext starts a watch that ends when it is silent for too long.
func (o *observed) WatchWithContext(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	// The cancel function ends the request, so it must live as long as the watch: newMonitoredWatch takes it over.
	watching, cancel := context.WithCancel(ctx)
	limit := time.AfterFunc(answerLimit, cancel)
	w, err := o.ListerWatcherWithContext.WatchWithContext(watching, opts)
	// The timer has cancelled the request, so errSilent tells the cause.
	if !limit.Stop() && err != nil && ctx.Err() == nil {
		err = errors.Join(errSilent, err)
	}
	// The reflector asks for any version after an expired version. If the server has no version at all, that would
	// repeat without a pause.
	if isExpired(err) && opts.ResourceVersion == "" {
		err = fmt.Errorf("%w: %s", errNeverNew, err) //nolint:errorlint // a reflector asks again at once after an expired version
	}
	switch {
	case opts.SendInitialEvents != nil && apierrors.IsInvalid(err): // an older API server: the reflector lists next
	case isExpired(err): // the version is too old: the reflector lists next
	case err != nil:
		o.failed(ctx, err)
	case isHungUp(w):
		o.failed(ctx, errHungUp)
	// After a watch that started and failed, a start proves nothing; handle waits for an event.
	case !o.suspect.Load():
		o.outage.Works()
	}
	if err != nil || isHungUp(w) {
		cancel()
		return w, err
	}
	// The wrapper must see the initial events before the reflector does.
	if o.initial != nil && opts.SendInitialEvents != nil && *opts.SendInitialEvents {
		w = o.initial(w)
	}
	return newMonitoredWatch(ctx, w, o, cancel), nil
}

// IsWatchListSemanticsUnSupported implements an optional interface of reflectors: it returns the answer of the wrapped source.
func (o *observed) IsWatchListSemanticsUnSupported() bool {
	return watchlist.DoesClientNotSupportWatchListSemantics(o.wrapped)
}

// failed reports a failure to the outage, unless the context has ended.
func (o *observed) failed(ctx context.Context, err error) {
	if ctx.Err() == nil {
		o.outage.Failed(err)
	}
}

// watchFailed reports the failure of a watch that had started.
func (o *observed) watchFailed(ctx context.Context, err error) {
	o.suspect.Store(true)
	o.failed(ctx, err)
}

// handle reports the success or the failure that an event of a watch shows.
// Any event but an error shows that the watch works.
func (o *observed) handle(ctx context.Context, e watch.Event) {
	if e.Type != watch.Error {
		if o.suspect.Swap(false) {
			o.outage.Works()
		}
		return
	}
	// An expired version in the middle of a watch is normal after a compaction: the reflector lists again.
	if err := apierrors.FromObject(e.Object); !isExpired(err) {
		o.watchFailed(ctx, err)
	}
}

// isExpired reports whether the API server no longer has the version from which a watch or a list should start.
func isExpired(err error) bool { return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) }

var emptyWatch = reflect.TypeOf(watch.NewEmptyWatch())

// isHungUp reports whether the server closed the connection without an answer. Clients return an empty watch and no error then.
func isHungUp(w watch.Interface) bool { return reflect.TypeOf(w) == emptyWatch }

// monitoredWatch is a watch that ends if it has no event for too long. The reflector then starts a new watch.
// The reflector reads events; run writes them and closes the channel.
type monitoredWatch struct {
	watch.Interface
	observed *observed
	events   chan watch.Event
	done     chan struct{} // closed by Stop
	once     sync.Once     // for Stop
	cancel   context.CancelFunc
}

// newMonitoredWatch takes over w and cancel: Stop calls both.
func newMonitoredWatch(ctx context.Context, w watch.Interface, o *observed, cancel context.CancelFunc) *monitoredWatch {
	g := &monitoredWatch{Interface: w, observed: o, events: make(chan watch.Event), done: make(chan struct{}), cancel: cancel}
	go g.run(ctx)
	return g
}

// run forwards the events of the wrapped watch until either side ends.
func (g *monitoredWatch) run(ctx context.Context) {
	defer close(g.events)
	defer g.drain()
	timer := time.NewTimer(g.observed.silence)
	defer timer.Stop()
	// A watch that ends at once, without any event, is a failure. A watch that ends later is a timeout of the server,
	// which ends every watch after some minutes.
	for empty := true; ; empty = false {
		select {
		case e, ok := <-g.Interface.ResultChan():
			if !ok {
				if empty {
					g.observed.watchFailed(ctx, errHungUp)
				}
				return
			}
			g.observed.handle(ctx, e)
			// The receiver may have stopped the watch instead of reading.
			select {
			case g.events <- e:
			case <-g.done:
				return
			}
			timer.Reset(g.observed.silence)
		case <-timer.C:
			g.observed.watchFailed(ctx, errSilent)
			return
		case <-g.done:
			return
		}
	}
}

// drain stops the wrapped watch and discards its last events. A watch.Filter would otherwise wait forever for a receiver.
func (g *monitoredWatch) drain() {
	g.Stop()
	for range g.Interface.ResultChan() { // discard
	}
}

// Stop ends the watch. It may be called more than once.
func (g *monitoredWatch) Stop() {
	g.once.Do(func() {
		close(g.done)
		g.cancel()
		g.Interface.Stop()
	})
}

// ResultChan is closed when the watch ends.
func (g *monitoredWatch) ResultChan() <-chan watch.Event { return g.events }
