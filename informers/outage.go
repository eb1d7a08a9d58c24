package informers

import (
	"sync"
	"time"

	"github.com/go-logr/logr"
)

// outage logs the loss and the return of something that is asked again and again, in a line each, however often it
// fails meanwhile. A long one is logged again, at intervals that double. It is safe for concurrent use.
type outage struct {
	log  logr.Logger // carries what it is about
	what string
	told func(down bool) // nil: nobody else is told

	mu      sync.Mutex
	since   time.Time // zero: not lost
	again   time.Time // when the next line is due
	pause   time.Duration
	failure int
}

const (
	firstReminder = time.Minute
	lastReminder  = time.Hour
)

func newOutage(log logr.Logger, what string) *outage { return &outage{log: log, what: what} }

// failed takes note of a failure.
func (o *outage) failed(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.failure++
	switch {
	case o.since.IsZero():
		o.since, o.pause = now, firstReminder
		o.tell(true)
		o.log.Error(err, o.what+" failed; what is enforced stays, and it is tried again until it works")
	case now.After(o.again):
		o.pause = min(2*o.pause, lastReminder)
		o.log.Error(err, o.what+" still fails", "for", now.Sub(o.since).Round(time.Second), "failures", o.failure)
	default:
		return
	}
	o.again = now.Add(o.pause)
}

// works takes note of a success.
func (o *outage) works() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		return
	}
	o.log.Info(o.what+" works again", "after", time.Since(o.since).Round(time.Millisecond), "failures", o.failure)
	o.since, o.failure = time.Time{}, 0
	o.tell(false)
}

func (o *outage) tell(down bool) {
	if o.told != nil {
		o.told(down)
	}
}
