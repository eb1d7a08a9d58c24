package drops

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// Path is the path on which the agent serves a Hub.
const Path = "/drops"

// Bounds of a follower. A follower that is slower than the packets loses some of them, and learns how many.
const (
	maxFollowers = 16
	backlog      = 256 // packets
	writeLimit   = 10 * time.Second
	heartbeat    = 15 * time.Second // between empty lines that show a silent follower that the agent lives
)

// Hub hands packets to followers. The zero value is ready for use, and all methods are safe for concurrent use.
type Hub struct {
	mu        sync.Mutex
	followers map[*follower]struct{}
	ended     bool
}

// follower is a client that reads packets. A closed channel ends it.
type follower struct {
	filter Filter
	drops  chan Drop
	lost   int // packets since the last one that it got; guarded by the lock of the Hub
}

// line is a line of the stream: a packet, or the number of packets that were lost before the next.
type line struct {
	*Drop
	Lost int `json:"lost,omitempty"`
}

// Publish hands a packet to all followers. It never waits.
func (h *Hub) Publish(d Drop) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for f := range h.followers {
		if !f.filter.matches(&d) {
			continue
		}
		select {
		case f.drops <- d:
		default:
			f.lost++
		}
	}
}

// Run ends all followers when the context ends.
func (h *Hub) Run(ctx context.Context) {
	<-ctx.Done()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	for f := range h.followers {
		close(f.drops)
	}
	h.followers = nil
}

// add returns a new follower, or nil if there are too many or the Hub has ended.
func (h *Hub) add(filter Filter) *follower {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended || len(h.followers) == maxFollowers {
		return nil
	}
	if h.followers == nil {
		h.followers = map[*follower]struct{}{}
	}
	f := &follower{filter: filter, drops: make(chan Drop, backlog)}
	h.followers[f] = struct{}{}
	return f
}

// remove ends a follower.
func (h *Hub) remove(f *follower) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.followers, f)
}

// takeLost returns the number of packets that the follower has lost since the last call.
func (h *Hub) takeLost(f *follower) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	lost := f.lost
	f.lost = 0
	return lost
}

// ServeHTTP streams packets, each as a line of JSON, until the client leaves or the agent ends. The parameters namespace and pod
// are those of a Filter. The answer is 503 if too many follow.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	f := h.add(Filter{Namespace: query.Get("namespace"), Pod: query.Get("pod")})
	if f == nil {
		http.Error(w, "too many clients follow dropped packets, or the agent ends", http.StatusServiceUnavailable)
		return
	}
	defer h.remove(f)
	w.Header().Set("Content-Type", "application/jsonl")
	control, encode := http.NewResponseController(w), json.NewEncoder(w)
	// write makes sure that a client that does not read ends.
	write := func(content ...line) bool {
		if control.SetWriteDeadline(time.Now().Add(writeLimit)) != nil {
			return false
		}
		for _, l := range content {
			if encode.Encode(l) != nil {
				return false
			}
		}
		return control.Flush() == nil
	}
	alive := time.NewTicker(heartbeat)
	defer alive.Stop()
	for ok := write(line{}); ok; {
		select {
		case d, open := <-f.drops:
			if !open {
				return
			}
			content := []line{{Drop: &d}}
			if lost := h.takeLost(f); lost > 0 {
				content = append(content, line{Lost: lost})
			}
			ok = write(content...)
		case <-alive.C:
			ok = write(line{})
		case <-r.Context().Done():
			return
		}
	}
}
