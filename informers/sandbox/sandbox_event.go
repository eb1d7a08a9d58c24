package sandbox

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// eventLifetime is the time for which an NRI event overrides the lists of CRI. A runtime lists a new sandbox only after all
// plugins have answered, and a list with an ended sandbox may have been requested before the sandbox ended.
const eventLifetime = 30 * time.Second

// sandboxEvent is the last NRI event of a sandbox: its start or its end.
type sandboxEvent struct {
	uid     types.UID
	sandbox cache.Sandbox
	ended   bool
	until   time.Time
}

// Started gives the sink a sandbox that the runtime starts now, before any list has it. It does nothing if the sandbox has ended
// already, since a hook may be late. A runtime never reuses an ID.
func (s *Sandboxes) Started(uid types.UID, sandbox cache.Sandbox) {
	s.mu.Lock()
	// A hook for a sandbox that has ended would bring it back.
	if !s.events[sandbox.ID].ended {
		s.setSandbox(uid, sandbox, time.Now())
	}
	s.mu.Unlock()
	s.config.Notify()
}

// Seen gives the sink a sandbox that the runtime had when NRI connected. It does nothing if another sandbox of the same pod is
// known, since only a list of CRI shows which of two sandboxes is newer.
func (s *Sandboxes) Seen(uid types.UID, sandbox cache.Sandbox) {
	s.mu.Lock()
	if _, known := s.current[uid]; !known && !s.events[sandbox.ID].ended {
		s.setSandbox(uid, sandbox, time.Time{})
	}
	s.mu.Unlock()
	s.config.Notify()
}

// Ended removes a sandbox from the sink, unless the pod has another sandbox by now.
func (s *Sandboxes) Ended(uid types.UID, id string) {
	s.mu.Lock()
	// The event is noted even if the sandbox is unknown: a hook of the same sandbox may come later.
	s.events[id] = sandboxEvent{uid: uid, ended: true, until: time.Now().Add(eventLifetime)}
	if sandbox, known := s.current[uid]; !known || sandbox.ID == id {
		delete(s.current, uid)
		s.config.Sink.DeleteSandbox(uid)
	}
	s.mu.Unlock()
	s.config.Notify()
}

// setSandbox notes the start of a sandbox and gives it to the sink. created is the zero time if the time of creation is unknown.
// The caller holds the lock.
func (s *Sandboxes) setSandbox(uid types.UID, sandbox cache.Sandbox, created time.Time) {
	s.events[sandbox.ID] = sandboxEvent{uid: uid, sandbox: sandbox, until: time.Now().Add(eventLifetime)}
	if s.current[uid] == sandbox {
		return
	}
	if s.config.Found != nil {
		s.config.Found(uid, created)
	}
	s.current[uid] = sandbox
	s.config.Sink.SetSandbox(uid, sandbox)
}

// applyEvents corrects the result of a list by the recent events. It drops old events, and starts of sandboxes that the list has.
// The caller holds the lock.
func (s *Sandboxes) applyEvents(want map[types.UID]cache.Sandbox) {
	now := time.Now()
	// An ended sandbox stays in events for its lifetime, since several lists may be outdated.
	for id, e := range s.events {
		switch r := s.resolve[id]; {
		case now.After(e.until):
			delete(s.events, id)
		case e.ended:
			if want[e.uid].ID == id {
				delete(want, e.uid)
			}
		case r != nil && r.done: // the list has the sandbox, and is newer than the event
			delete(s.events, id)
		default:
			want[e.uid] = e.sandbox
		}
	}
}
