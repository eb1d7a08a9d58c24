package outage

import (
	"sync"
	"time"

	"github.com/go-logr/logr"
)

// Outage logs each loss and each return in one line, however often the input fails in between. A long loss is logged
// again, at intervals that double. It is safe for concurrent use.
type Outage struct {
	log    logr.Logger // carries the name of the input
	action string      // that fails: "Watching the API server"
	told   func(down bool)

	mu       sync.Mutex
	since    time.Time // zero: not lost
	again    time.Time // when the next line is due
	pause    time.Duration
	failures int
}

const (
	firstReminder = time.Minute
	lastReminder  = time.Hour
)

// New returns an Outage of an action. told hears of each loss and each return; it may be nil.
func New(log logr.Logger, action string, told func(down bool)) *Outage {
	return &Outage{log: log, action: action, told: told}
}

// Failed notes a failure.
func (o *Outage) Failed(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.failures++
	switch {
	case o.since.IsZero():
		o.since, o.pause = now, firstReminder
		o.tell(true)
		o.log.Error(err, o.action+" failed; enforced policies stay in force, retrying until it works")
	case now.After(o.again):
		o.pause = min(2*o.pause, lastReminder)
		o.log.Error(err, o.action+" still fails", "for", now.Sub(o.since).Round(time.Second), "failures", o.failures)
	default:
		return
	}
	o.again = now.Add(o.pause)
}

// Works notes a success.
func (o *Outage) Works() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		return
	}
	o.log.Info(o.action+" works again", "after", time.Since(o.since).Round(time.Millisecond), "failures", o.failures)
	o.since, o.failures = time.Time{}, 0
	o.tell(false)
}

func (o *Outage) tell(down bool) {
	if o.told != nil {
		o.told(down)
	}
}
