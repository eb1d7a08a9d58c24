package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// NotReadyTaint keeps pods off a node whose policies are not enforced yet. An administrator lets the kubelet set it
// when the node joins (kubelet --register-with-taints); the agent removes it.
const NotReadyTaint = "multi-networkpolicy/agent-not-ready"

// Pauses between tries to remove the taint.
const (
	firstTaintRetry = time.Second
	lastTaintRetry  = time.Minute
)

// nodeClient reads and patches nodes. *informers.Core implements it.
type nodeClient interface {
	Node(ctx context.Context, name string) (*corev1.Node, error)
	PatchNode(ctx context.Context, name string, patch []byte) error
}

// removeTaint removes the taint from the node when the agent is ready, and retries until it succeeds or the context
// ends.
// It never fails: an error is logged, and the pause doubles.
func removeTaint(ctx context.Context, nodes nodeClient, node string, h *health) {
	if !h.waitUntilReady(ctx) {
		return
	}
	log := logr.FromContextOrDiscard(ctx).WithValues("node", node, "taint", NotReadyTaint)
	for pause := firstTaintRetry; ; pause = min(2*pause, lastTaintRetry) {
		removed, err := removeTaintOnce(ctx, nodes, node)
		switch {
		case err == nil && removed:
			log.Info("The node takes pods now")
			return
		// The taint is gone, or the agent stops.
		case err == nil || ctx.Err() != nil:
			return
		}
		log.Error(err, "The taint stays on the node; it is tried again", "in", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// taintTries is the number of immediate tries if another program changes the node at the same moment.
const taintTries = 5

// removeTaintOnce reads the node again after a conflict: Invalid is the answer if the operation "test" of the patch
// fails.
// removed says whether the node had the taint.
func removeTaintOnce(ctx context.Context, nodes nodeClient, node string) (removed bool, err error) {
	for try := 1; ; try++ {
		removed, err = patchTaint(ctx, nodes, node)
		if try == taintTries || !apierrors.IsInvalid(err) && !apierrors.IsConflict(err) {
			return removed, err
		}
	}
}

// patchTaint removes the taint by its index in the list, if it is still there. Other programs change other taints in
// the list, so a JSON patch (RFC 6902) with a "test" is used: a patch of the whole list would undo their changes.
func patchTaint(ctx context.Context, nodes nodeClient, name string) (bool, error) {
	node, err := nodes.Node(ctx, name)
	if err != nil {
		return false, fmt.Errorf("get node: %w", err)
	}
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value,omitempty"`
	}
	var patch []operation
	for i := len(node.Spec.Taints) - 1; i >= 0; i-- { // from the end, so that the indexes of the other taints stay valid
		if t := node.Spec.Taints[i]; t.Key == NotReadyTaint {
			path := fmt.Sprintf("/spec/taints/%d", i)
			patch = append(patch, operation{"test", path, t}, operation{"remove", path, nil})
		}
	}
	// Somebody else has removed it, or the node never had it.
	if len(patch) == 0 {
		return false, nil
	}
	data, err := json.Marshal(patch)
	if err != nil {
		return false, err
	}
	if err := nodes.PatchNode(ctx, name, data); err != nil {
		return false, fmt.Errorf("patch node: %w", err)
	}
	return true, nil
}
