package reconciler

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/go-logr/logr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
)

// enforced is the state of a pod in the kernel, as far as this agent knows. The holder of the pod's lock may read and
// change it. The zero value knows nothing: the first apply reads the kernel.
type enforced struct {
	sandbox cache.Sandbox  // the sandbox that the other fields are about
	table   Table          // nil: not open
	applied bool           // tables are in the kernel: the last apply succeeded
	tables  engine.Tables  // as last applied
	found   engine.Finding // by the last check, to log a change only
	closed  time.Time      // when the pod started closed; zero: it has its own tables, or none yet
	bridge  bridgeSearch

	toldSeedFailure bool // the current failure is in the log
}

// logSeedFailure logs that connection tracking does not know all connections of a pod.
func (r *Reconciler) logSeedFailure(log logr.Logger, e *enforced, pod cache.PodID) {
	if err := e.table.SeedFailure(); err != nil && !e.toldSeedFailure && r.mayLog(pod) {
		log.Error(err, "Connection tracking does not know all connections of the pod, so their next packets are judged as first packets")
		e.toldSeedFailure = true
	} else if err == nil {
		e.toldSeedFailure = false
	}
}

// logFinding logs the findings of a check that show the work of another process.
func logFinding(log logr.Logger, found engine.Finding) {
	switch found {
	case engine.Repaired:
		log.Info("Table repaired: somebody else had changed it")
	case engine.OwnedByAnother:
		log.Info("Another process owns the table of the pod, which is as it should be; the agent takes the table over when that process ends")
	case engine.Reseeded:
		log.Info("Connections restored: another process had deleted the entries of connection tracking")
	case engine.TakenOver:
		log.Info("Table taken over: its owner has ended")
	}
}

// apply brings the pod to its target, and logs it. Log lines are within the budget of the pod; the metrics count all.
func (r *Reconciler) apply(ctx context.Context, log logr.Logger, e *enforced, target cache.Target) error {
	start := time.Now()
	isEmpty := target.Tables.IsEmpty()
	removed := isEmpty && !e.tables.IsEmpty()
	if err := r.bring(ctx, log, e, target); err != nil {
		return err
	}
	r.observer.Applied(target)
	r.logSeedFailure(log, e, target.Pod)
	took := time.Since(start).Round(time.Microsecond)
	switch {
	case isEmpty && !removed:
		log.V(2).Info("No policy applies", "took", took)
	case !r.mayLog(target.Pod):
	case removed:
		log.Info("No policy applies any more", "took", took)
	default:
		log.Info("Policies enforced", "sets", len(target.Tables[engine.Inet].Sets), "chains", len(target.Tables[engine.Inet].Chains),
			"bridge", target.HasBridge, "took", took)
	}
	if isEmpty { // most pods have no policy, and then need no open socket
		e.close(log) // most pods have no policy: none of them costs a descriptor
	}
	return nil
}

// bring applies the target's tables, with a new socket if necessary. Only a success changes e.tables: after a failure
// it is unknown which tables are in force, and e.applied is false.
func (r *Reconciler) bring(ctx context.Context, log logr.Logger, e *enforced, target cache.Target) error {
	err := r.tryApply(ctx, e, target)
	// A refusal came over a socket that works. Another error may be the socket's own. Then another socket is tried at
	// once, and not after the pause of a retry: the table of a closed socket has no owner, and root in the pod can
	// change it.
	var refused *nfnl.MessageError
	if err != nil && !errors.As(err, &refused) {
		e.close(log)
		err = r.tryApply(ctx, e, target)
	}
	if e.applied = err == nil; e.applied {
		e.tables = target.Tables
	}
	return err
}

// tryApply applies the target's tables, and opens the socket before if it is closed.
func (r *Reconciler) tryApply(ctx context.Context, e *enforced, target cache.Target) error {
	if err := r.openTable(e, target); err != nil {
		return err
	}
	return e.table.Apply(ctx, target.Tables)
}

// openTable opens the tables in the network namespace of the target's sandbox, unless they are open.
func (r *Reconciler) openTable(e *enforced, target cache.Target) error {
	if e.table != nil {
		return nil
	}
	opened, err := r.open(target.Pod.String(), target.Sandbox.NetNS)
	if err == nil {
		e.table = opened
	}
	return err
}

// sameTables reports whether the tables have the same sets and chains. It compares pointers: the cache shares sets and
// chains, and never changes a set or a chain in place. Different pointers to equal content only cost an apply that
// sends nothing.
func sameTables(a, b *engine.Tables) bool {
	for f := range a {
		if !slices.Equal(a[f].Sets, b[f].Sets) || !slices.Equal(a[f].Chains, b[f].Chains) {
			return false
		}
	}
	return true
}

// enforced returns the state of a pod in the kernel, which is the zero value for a new pod.
func (r *Reconciler) enforced(pod cache.PodID) *enforced {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.pods[pod]
	if e == nil {
		e = &enforced{}
		r.pods[pod] = e
	}
	return e
}

// close closes the socket to the network namespace. The tables in the namespace stay.
func (e *enforced) close(log logr.Logger) {
	if e.table == nil {
		return
	}
	if err := e.table.Close(); err != nil {
		log.Error(err, "Closing the netlink socket of the pod failed")
	}
	e.table = nil
}
