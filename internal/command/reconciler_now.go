package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// Why a pod cannot be enforced now.
var (
	errEnded      = errors.New("the agent ends")
	errAnotherPod = errors.New("another pod has the name")
	errNoSandbox  = errors.New("it is not known where the pod runs")
)

// EnforceNow brings a pod up to date before it returns, past the queue: however long that is, this one pod does not wait.
// It says whether there are rules to be in force; a pod that has none is left to the queue. The pod is queued as well, so
// that one which fails is tried again. When the context ends it returns, and the work goes on.
func (r *reconciler) EnforceNow(ctx context.Context, key cache.Key, uid types.UID) (enforced bool, err error) {
	type outcome struct {
		enforced bool
		err      error
	}
	done := make(chan outcome, 1)
	if target, ok := r.targets.Target(key); ok && target.UID == uid && target.Ruleset.IsEmpty() {
		return false, nil
	}
	go func() {
		enforced, err := r.enforceNow(ctx, key, uid)
		done <- outcome{enforced, err}
	}()
	select {
	case o := <-done:
		return o.enforced, o.err
	case <-ctx.Done():
		return false, fmt.Errorf("not done in time: %w", ctx.Err())
	}
}

func (r *reconciler) enforceNow(ctx context.Context, key cache.Key, uid types.UID) (enforced bool, err error) {
	defer r.locks.lock(key)()
	r.mu.Lock()
	ended := r.ended
	r.mu.Unlock()
	target, ok := r.targets.Target(key)
	switch {
	case ended:
		return false, errEnded
	case !ok:
		// Neither the pod's network status nor what it asks for can be read, or policies have nothing to do with it.
		logr.FromContextOrDiscard(ctx).V(1).Info("A pod starts of which it is not known what selects it", "pod", key.String())
		return false, nil
	case target.UID != uid:
		return false, errAnotherPod
	case target.Ruleset.IsEmpty():
		return false, nil
	case target.Sandbox.ID == "":
		return false, errNoSandbox
	}
	return true, r.work(ctx, key)
}
