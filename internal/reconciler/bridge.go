package reconciler

import (
	"context"
	"slices"
	"time"

	"github.com/go-logr/logr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// Times between two looks for a bridge in a pod. A look takes about 0.1 ms, for each selected pod without a known bridge. A virtual
// machine starts, and makes its bridge, soon after its pod got the interface.
const (
	bridgeInterval    = 5 * time.Second
	oldBridgeInterval = time.Minute // for a pod whose interfaces are older than bridgeAge
	bridgeAge         = time.Minute
)

// bridgeSearch is the search for a bridge with an isolated interface of the pod as a port. Until the search finds it,
// the tables of the pod drop the bridge's frames, so a late look is safe.
type bridgeSearch struct {
	ports []string  // names of interfaces to look for; empty: no need to look
	since time.Time // first look for these interfaces
	last  time.Time // time of the last look; zero: none yet in this sandbox
}

// isDue reports whether it is time to look.
func (s *bridgeSearch) isDue(now time.Time) bool {
	interval := bridgeInterval
	if now.Sub(s.since) > bridgeAge {
		interval = oldBridgeInterval
	}
	return len(s.ports) > 0 && now.Sub(s.last) >= interval
}

// searchBridge looks for a bridge before the first tables of a sandbox, so that a restarted agent does not replace the
// rules of a known bridge by a drop for a moment. If it finds a bridge, the target becomes the target with the bridge.
// Later looks are made by bridgeAppeared.
func (r *Reconciler) searchBridge(e *enforced, target *cache.Target) error {
	if target.HasBridge || target.Tables.IsEmpty() {
		e.bridge = bridgeSearch{}
		return nil
	}
	if !slices.Equal(e.bridge.ports, target.BridgePorts) {
		e.bridge.ports, e.bridge.since = target.BridgePorts, time.Now()
	}
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
	// The plan depends on the bridge, so the pod is planned again.
	r.targets.SetBridged(target.Pod)
	if again, ok := r.targets.Plan(target.Pod); ok {
		*target, e.bridge.ports = again, nil
	}
	return nil
}

// lookForBridge asks the kernel. Only a look with an answer counts for bridgeInterval.
func (e *enforced) lookForBridge() (bool, error) {
	is, err := e.table.HasBridgePort(e.bridge.ports...)
	if err == nil {
		e.bridge.last = time.Now()
	}
	return is, err
}

// bridgeAppeared reports whether an isolated interface of the pod has become a port of a bridge. The caller holds the
// lock of the pod, and queues the pod if the answer is true.
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
