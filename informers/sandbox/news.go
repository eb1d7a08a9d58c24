package sandbox

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// newsLifetime is how long an NRI event counts against a list that contradicts it: a runtime lists a sandbox only after
// all plugins have agreed to its start, and a list may be older than the event.
const newsLifetime = 30 * time.Second

// news is an NRI event of a sandbox.
type news struct {
	uid     types.UID
	sandbox cache.Sandbox
	ended   bool
	until   time.Time
}

// Started takes a sandbox that the runtime starts now, before it is in any list. It changes nothing when the sandbox has
// ended already: a runtime never uses an ID again.
func (s *Sandboxes) Started(uid types.UID, sandbox cache.Sandbox) {
	s.mu.Lock()
	if !s.news[sandbox.ID].ended {
		s.takeNews(uid, sandbox, time.Now())
	}
	s.mu.Unlock()
	s.config.Notify()
}

// Seen takes a sandbox that the runtime has. It changes nothing when a sandbox of the same pod is known: which of two is
// newer only a list tells.
func (s *Sandboxes) Seen(uid types.UID, sandbox cache.Sandbox) {
	s.mu.Lock()
	if _, known := s.told[uid]; !known && !s.news[sandbox.ID].ended {
		s.takeNews(uid, sandbox, time.Time{})
	}
	s.mu.Unlock()
	s.config.Notify()
}

// Ended notes that a sandbox is gone.
func (s *Sandboxes) Ended(uid types.UID, id string) {
	s.mu.Lock()
	s.news[id] = news{uid: uid, ended: true, until: time.Now().Add(newsLifetime)}
	if told, known := s.told[uid]; !known || told.ID == id {
		delete(s.told, uid)
		s.config.Sink.DeleteSandbox(uid)
	}
	s.mu.Unlock()
	s.config.Notify()
}

// takeNews tells the sink. created is zero when the time of creation is unknown.
func (s *Sandboxes) takeNews(uid types.UID, sandbox cache.Sandbox, created time.Time) {
	s.news[sandbox.ID] = news{uid: uid, sandbox: sandbox, until: time.Now().Add(newsLifetime)}
	if s.told[uid] == sandbox {
		return
	}
	if s.config.Found != nil {
		s.config.Found(uid, created)
	}
	s.told[uid] = sandbox
	s.config.Sink.SetSandbox(uid, sandbox)
}

// correct applies the news to the result of a list.
func (s *Sandboxes) correct(want map[types.UID]cache.Sandbox) {
	now := time.Now()
	for id, n := range s.news {
		switch r := s.resolve[id]; {
		case now.After(n.until):
			delete(s.news, id)
		case n.ended:
			if want[n.uid].ID == id {
				delete(want, n.uid)
			}
		case r != nil && r.done: // the list has it as well, and is newer
			delete(s.news, id)
		default:
			want[n.uid] = n.sandbox
		}
	}
}
