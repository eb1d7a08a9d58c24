package informers

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// newsLifetime is how long what NRI told of a sandbox counts against a list that does not say so: a runtime lists a
// sandbox only when all that is asked about its start has agreed, and a list may be older than the news.
const newsLifetime = 30 * time.Second

// news is what NRI told of a sandbox.
type news struct {
	uid     types.UID
	sandbox cache.Sandbox
	ended   bool
	until   time.Time
}

// Started takes a sandbox that the runtime starts now, before it is in any list.
func (s *Sandboxes) Started(uid types.UID, sandbox cache.Sandbox) {
	s.mu.Lock()
	s.takeNews(uid, sandbox, time.Now())
	s.mu.Unlock()
	s.config.Notify()
}

// Seen takes a sandbox that the runtime has, and nothing when one of the same pod is known: which of two is the newer
// one only a list says.
func (s *Sandboxes) Seen(uid types.UID, sandbox cache.Sandbox) {
	s.mu.Lock()
	if _, known := s.told[uid]; !known && !s.news[sandbox.ID].ended {
		s.takeNews(uid, sandbox, time.Time{})
	}
	s.mu.Unlock()
	s.config.Notify()
}

// Ended says that a sandbox is no more.
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

// takeNews tells the sink. The time is that of the sandbox's creation, zero when it is not known.
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

// correct makes what follows from a list what follows from it and the news.
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
		case r != nil && r.done: // the list has it too, and knows better
			delete(s.news, id)
		default:
			want[n.uid] = n.sandbox
		}
	}
}
