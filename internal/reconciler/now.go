package reconciler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// Reasons why a pod cannot be enforced now.
var (
	errEnded     = errors.New("the agent stops")
	errNoSandbox = errors.New("it is unknown where the pod runs")
)

// EnforceNow brings a pod up to date before it returns, past the queue: this pod does not wait, however long the queue
// is. enforced is false without an error if no policy selects the pod; such a pod is left to the queue. The caller has
// queued the pod too, so a failure is retried. When the context ends, EnforceNow returns an error, and the work goes on
// in the background.
func (r *Reconciler) EnforceNow(ctx context.Context, pod cache.PodID) (enforced bool, err error) {
	// Most pods that start have no policy. They need no plan and no lock.
	if selected, known := r.targets.IsSelected(pod); known && !selected {
		return false, nil
	}
	// See isCrowd: the tables of closed pods wait while pods start.
	r.starts.last.Store(time.Now().UnixNano())
	type outcome struct {
		enforced bool
		err      error
	}
	done := make(chan outcome, 1)
	go func() {
		enforced, err := r.enforceNow(ctx, pod)
		done <- outcome{enforced, err}
	}()
	select {
	case o := <-done:
		return o.enforced, o.err
	case <-ctx.Done():
		return false, fmt.Errorf("not done in time: %w", ctx.Err())
	}
}

// enforceNow is EnforceNow without the limit of time. The lock of the pod keeps a worker from working on the pod
// meanwhile.
func (r *Reconciler) enforceNow(ctx context.Context, pod cache.PodID) (enforced bool, err error) {
	defer r.locks.lock(pod)()
	r.mu.Lock()
	ended := r.ended
	r.mu.Unlock()
	target, ok := r.targets.Plan(pod)
	switch {
	case ended:
		return false, errEnded
	case !ok:
		// Neither the status nor the requested networks of the pod can be read, or no policy applies to it.
		logr.FromContextOrDiscard(ctx).V(1).Info("Pod starts before its policies are known", "pod", pod.String())
		return false, nil
	// No table is needed, or one that drops nothing. The namespace is not even opened: the queue makes a table of the second kind.
	case target.Tables.IsEmpty(), target.AuditOnly:
		return false, nil
	case target.Sandbox.ID == "":
		return false, errNoSandbox
	}
	return true, r.work(ctx, pod)
}
