//go:build linux

package enforcement

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// Bounds of an answer.
const (
	writeTimeout = 10 * time.Second // for a client that does not read
	// A change of a peer that waits for longer makes the pod not enforced. Nearly all changes are in the kernel within milliseconds.
	longWait = 5 * time.Second
)

// Handler serves the answer. It makes the answer pod by pod, so its memory is bounded by a single pod.
type Handler struct {
	Node, Version string
	Cache         *cache.Cache
	Record        *Record
	// WaitsSince returns since when a change waits to get into the kernel for a pod; zero: none does.
	WaitsSince func(cache.PodID) time.Time
	NotReady   func() string // as Header.NotReady

	started time.Time
	turn    chan struct{} // holds a value while an answer is made
}

// NewHandler completes a handler, which answers for an agent that starts now.
func NewHandler(h Handler) *Handler {
	h.started, h.turn = time.Now(), make(chan struct{}, 1)
	return &h
}

// ServeHTTP implements http.Handler. It makes one answer at a time, so that clients on the node cannot occupy several cores.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-r.Context().Done():
		return
	}
	namespace, name := r.URL.Query().Get(ParameterNamespace), r.URL.Query().Get(ParameterPolicy)
	if name != "" && namespace == "" {
		http.Error(w, ParameterPolicy+" needs "+ParameterNamespace, http.StatusBadRequest)
		return
	}
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		http.Error(w, fmt.Sprint(err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", ContentType)
	out := json.NewEncoder(w)
	err := out.Encode(Header{Node: h.Node, Version: h.Version, Started: h.started, NotReady: h.NotReady()})
	n := 0
	for _, id := range h.Cache.LocalPods(namespace) {
		pod, ok := h.pod(id, name)
		if !ok {
			continue
		}
		if err = out.Encode(pod); err != nil {
			return // the client is gone
		}
		n++
	}
	if err == nil {
		out.Encode(End{n}) //nolint:errcheck // the client is gone
	}
}

// pod returns the state of a pod. It returns false if the pod is gone.
func (h *Handler) pod(id cache.PodID, name string) (Pod, bool) {
	// The record comes before the cache. A table that is acknowledged in between then counts as waiting, and never the other way round.
	record := h.Record.of(id)
	policies, ok := h.Cache.Enforcement(id, name, record.acknowledged)
	if !ok {
		return Pod{}, false
	}
	pod := Pod{Namespace: id.Namespace, Name: id.Name, UID: id.UID, Policies: make([]Policy, 0, len(policies))}
	waits := h.WaitsSince(id)
	for _, e := range policies {
		p := Policy{Name: e.Policy.Key.Name, UID: e.Policy.UID, Version: e.Policy.Version, State: stateOf(e.Gaps)}
		if !e.Since.IsZero() {
			p.Since = &e.Since
		}
		for _, g := range e.Gaps {
			p.Reasons = append(p.Reasons, Reason{g.Reason, g.Interface, g.Message})
		}
		if p.State != NoEffect {
			p.addWork(record.failure, waits)
		}
		pod.Policies = append(pod.Policies, p)
	}
	return pod, true
}

// addWork adds the reasons from the work on the tables of the pod: an error, or a change that waits for long.
func (p *Policy) addWork(f *failure, waits time.Time) {
	switch {
	case f != nil:
		p.State = NotEnforced
		message := fmt.Sprintf("%s; the agent retries, without success since %s", f.message, f.since.UTC().Format(time.RFC3339))
		p.Reasons = slices.DeleteFunc(p.Reasons, func(r Reason) bool { return r.Reason == cache.GapWaiting }) // the error is why
		p.Reasons = slices.Insert(p.Reasons, 0, Reason{Reason: f.reason, Message: message})
	case !waits.IsZero() && time.Since(waits) > longWait:
		p.State = NotEnforced
		message := "a change waits in the queue of the agent since " + waits.UTC().Format(time.RFC3339)
		p.Reasons = append(p.Reasons, Reason{Reason: cache.GapWaiting, Message: message})
	}
}
