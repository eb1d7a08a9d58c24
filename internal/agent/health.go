package agent

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// health answers /livez and /readyz. Live means that the workers take pods. Ready means that the policies are enforced
// in the pods of the node. It is safe for concurrent use.
type health struct {
	progress *progress
	// mu guards the fields below.
	mu      sync.Mutex
	missing func() []string      // returns the names of inputs that are not in sync; nil: the agent still starts
	stalled func() time.Duration // returns how long a pod has waited for a worker
	// ready stays true: an input that is lost later does not make the agent unready, since enforced policies stay in
	// force.
	ready bool
	// ending is true from the end of the context on.
	ending bool
}

// follow sets the sources of health. Before it, the agent is live and not ready.
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

// whyNotReady returns the reason why the agent is not ready, or an empty string if it is ready. It is ready when all
// inputs are in sync and every local pod was reconciled once. A failed pod counts as reconciled: it is retried, and a
// single broken pod must not keep a whole node out of use.
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

// stalledAfter is longer than any step of a worker takes: the kernel answers a batch sooner, and no read from its
// socket waits.
// The probe of the kubelet then restarts the agent.
const stalledAfter = 2 * time.Minute

// whyNotAlive returns the reason why the agent should be restarted, or an empty string. The reason is that no worker
// takes pods. A single pod that hangs is no reason: otherwise a tenant could end the agent.
func (h *health) whyNotAlive() string {
	// stalled takes the lock of the queue, so it is called without this lock.
	h.mu.Lock()
	stalled := h.stalled
	h.mu.Unlock()
	if stalled != nil && stalled() > stalledAfter {
		return fmt.Sprintf("a pod has waited for a worker for more than %s", stalledAfter)
	}
	return ""
}

// waitUntilReady returns true when the agent is ready, or false when the context ends before.
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

// handler serves both checks: status 200 and "ok", or status 503 and the reason. It also serves other paths to clients on the node:
// this listener stays on loopback where that of the metrics is open to Prometheus.
func (h *health) handler(onNode map[string]http.HandlerFunc) http.Handler {
	mux := http.NewServeMux()
	for path, answer := range onNode {
		mux.HandleFunc("GET "+path, localOnly(answer))
	}
	for path, why := range map[string]func() string{"GET /livez": h.whyNotAlive, "GET /readyz": h.whyNotReady} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			if problem := why(); problem != "" {
				http.Error(w, problem, http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "ok") //nolint:errcheck // the client may be gone
		})
	}
	return mux
}

// localOnly refuses clients on other machines: the address of the flag may be one that they reach, for their probes.
func localOnly(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !from.Addr().Unmap().IsLoopback() {
			http.Error(w, "only for clients on loopback", http.StatusForbidden)
			return
		}
		next(w, r)
	}
}
