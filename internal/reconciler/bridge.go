package reconciler

import (
	"context"
	"time"

	"github.com/go-logr/logr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// bridgeInterval is the least time between two looks for a bridge in a pod. A look takes about 0.1 ms.
const bridgeInterval = 5 * time.Second

// bridgeSearch looks for a bridge whose port is an isolated interface of the pod. The tables drop its frames until it is found.
type bridgeSearch struct {
	ports []string // the names to look for; empty: no need to look
	last  time.Time
}

// isDue reports whether it is time to look.
func (s *bridgeSearch) isDue(now time.Time) bool {
	return len(s.ports) > 0 && now.Sub(s.last) >= bridgeInterval
}

// searchBridge looks for a bridge before the first tables of a sandbox, so that an agent that starts again does not replace the
// rules of a bridge by a drop. If it finds a bridge, the target becomes the target with the bridge.
func (r *Reconciler) searchBridge(e *enforced, target *cache.Target) error {
	if target.HasBridge || target.Tables.IsEmpty() {
		e.bridge = bridgeSearch{}
		return nil
	}
	e.bridge.ports = target.BridgePorts
	if !e.bridge.last.IsZero() {
		return nil
	}
	if err := r.openTable(e, *target); err != nil {
		return err
	}
	is, err := e.lookForBridge()
	if !is || err != nil {
		return err
	}
	r.targets.SetBridged(target.Pod)
	if again, ok := r.targets.Plan(target.Pod); ok {
		*target, e.bridge.ports = again, nil
	}
	return nil
}

func (e *enforced) lookForBridge() (bool, error) {
	is, err := e.table.HasBridgePort(e.bridge.ports...)
	if err == nil {
		e.bridge.last = time.Now()
	}
	return is, err
}

// bridgeAppeared reports whether an isolated interface of the pod has become a port of a bridge. The caller holds the lock of the
// pod, and queues the pod.
func (r *Reconciler) bridgeAppeared(ctx context.Context, pod cache.PodID, e *enforced) bool {
	if !e.bridge.isDue(time.Now()) {
		return false
	}
	is, err := e.lookForBridge()
	switch {
	case err != nil:
		e.bridge.last = time.Now() // the next look may succeed; the table drops the frames meanwhile
	case is:
		e.bridge.ports = nil
		r.targets.SetBridged(pod)
		logr.FromContextOrDiscard(ctx).Info("Bridge found: an isolated interface of the pod is a port of it", "pod", pod.String())
	}
	return is
}
