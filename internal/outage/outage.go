package outage

import (
	"sync"
	"time"

	"github.com/go-logr/logr"
)

// Outage logs the first failure and the next success of an input, each in a single line. During a long outage it logs reminders
// at doubling intervals. It is safe for concurrent use.
type Outage struct {
	// The log lines begin with action, such as "Watching the API server": "… failed", "… still fails", "… works again".
	// log carries the name of the input.
	log    logr.Logger
	action string
	// notify is called under mu at the start and at the end of an outage; nil: not called.
	notify func(down bool)

	// mu guards the fields below.
	mu       sync.Mutex
	since    time.Time     // start of the outage; zero: the input works
	again    time.Time     // time of the next reminder
	pause    time.Duration // between the last reminder and the next
	failures int           // number of failures in this outage
}

// Minimum and maximum interval between reminders.
const (
	firstReminder = time.Minute
	lastReminder  = time.Hour
)

// New returns an Outage of an action. It calls notify at the start and at the end of each outage, under the lock of the Outage.
// notify may be nil.
func New(log logr.Logger, action string, notify func(down bool)) *Outage {
	return &Outage{log: log, action: action, notify: notify}
}

// Failed reports a failure. The first failure starts an outage; a later failure only logs a reminder, if a reminder is
// due.
func (o *Outage) Failed(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.failures++
	switch {
	case o.since.IsZero():
		o.since, o.pause = now, firstReminder
		o.notifyLocked(true)
		o.log.Error(err, o.action+" failed; enforced policies stay in force, retrying until it works")
	case now.After(o.again):
		o.pause = min(2*o.pause, lastReminder)
		o.log.Error(err, o.action+" still fails", "for", now.Sub(o.since).Round(time.Second), "failures", o.failures)
	default:
		return
	}
	o.again = now.Add(o.pause)
}

// Works reports a success. It ends a current outage. Without an outage it is cheap, so each success may be reported.
func (o *Outage) Works() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		return
	}
	o.log.Info(o.action+" works again", "after", time.Since(o.since).Round(time.Millisecond), "failures", o.failures)
	o.since, o.failures = time.Time{}, 0
	o.notifyLocked(false)
}

// notifyLocked calls notify. The caller holds mu, so the calls are in the order of the events.
func (o *Outage) notifyLocked(down bool) {
	if o.notify != nil {
		o.notify(down)
	}
}
