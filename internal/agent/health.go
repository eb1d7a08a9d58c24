package agent

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// health reports whether the agent lives, and whether policies are enforced in the pods of the node.
type health struct {
	progress *progress

	mu      sync.Mutex
	missing func() []string      // inputs; nil: there are none yet
	stalled func() time.Duration // how long a pod has waited for a worker
	ready   bool
	ending  bool
}

// follow sets the sources of health.
func (h *health) follow(missing func() []string, stalled func() time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.missing, h.stalled = missing, stalled
}

// end makes the agent unready, when the context ends.
func (h *health) end(ctx context.Context) {
	<-ctx.Done()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ending = true
}

// whyNotReady is empty when all inputs are known and every local pod was reconciled once. One in which that failed
// counts too: it is tried again, and to wait for it would keep a whole node out of use for one broken pod.
func (h *health) whyNotReady() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.ending:
		return "stopping"
	case h.ready:
		return ""
	case h.missing == nil:
		return "starting"
	}
	if missing := h.missing(); len(missing) > 0 {
		return "waiting for " + strings.Join(missing, " and ")
	}
	if !h.progress.allTried() {
		return "pods are not reconciled yet"
	}
	h.ready = true
	h.progress.forgetTried()
	return ""
}

// stalledAfter is longer than any step of a worker takes: a kernel answers in less, and every read from its socket ends.
const stalledAfter = 2 * time.Minute

// whyNotAlive is empty unless no worker takes pods any more. One pod that hangs does not make the agent dead: a tenant could
// otherwise end the agent.
func (h *health) whyNotAlive() string {
	h.mu.Lock()
	stalled := h.stalled
	h.mu.Unlock()
	if stalled != nil && stalled() > stalledAfter {
		return fmt.Sprintf("a pod has waited for a worker for more than %s", stalledAfter)
	}
	return ""
}

// waitUntilReady is false when the context ends before.
func (h *health) waitUntilReady(ctx context.Context) bool {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for h.whyNotReady() != "" {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

func (h *health) handler() http.Handler {
	mux := http.NewServeMux()
	for path, why := range map[string]func() string{"GET /livez": h.whyNotAlive, "GET /readyz": h.whyNotReady} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			if problem := why(); problem != "" {
				http.Error(w, problem, http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "ok") //nolint:errcheck // who asked is gone
		})
	}
	return mux
}
