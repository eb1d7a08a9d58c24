package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// NotReadyTaint keeps pods off a node whose policies are not enforced yet. Who makes the node sets it
// (kubelet --register-with-taints); the agent takes it away.
const NotReadyTaint = "multi-networkpolicy/agent-not-ready"

const (
	firstTaintRetry = time.Second
	lastTaintRetry  = time.Minute
)

// removeTaint takes the taint from the node once the agent is ready, and tries until that is done.
func removeTaint(ctx context.Context, nodes typedcorev1.NodeInterface, node string, h *health) {
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

// taintTries is how often a node that somebody else changes at the same moment is read again.
const taintTries = 5

func removeTaintOnce(ctx context.Context, nodes typedcorev1.NodeInterface, node string) (removed bool, err error) {
	for try := 1; ; try++ {
		removed, err = patchTaint(ctx, nodes, node)
		if try == taintTries || !apierrors.IsInvalid(err) && !apierrors.IsConflict(err) {
			return removed, err
		}
	}
}

// patchTaint removes the taint from where it stands, if it still stands there: the list has other taints, which other
// programs change.
func patchTaint(ctx context.Context, nodes typedcorev1.NodeInterface, name string) (bool, error) {
	node, err := nodes.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return false, fmt.Errorf("get node: %w", err)
	}
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value,omitempty"`
	}
	var patch []operation
	for i := len(node.Spec.Taints) - 1; i >= 0; i-- { // from the end, so that places stay what they were
		if t := node.Spec.Taints[i]; t.Key == NotReadyTaint {
			path := fmt.Sprintf("/spec/taints/%d", i)
			patch = append(patch, operation{"test", path, t}, operation{"remove", path, nil})
		}
	}
	if len(patch) == 0 {
		return false, nil
	}
	data, err := json.Marshal(patch)
	if err != nil {
		return false, err
	}
	if _, err := nodes.Patch(ctx, name, types.JSONPatchType, data, metav1.PatchOptions{}); err != nil {
		return false, fmt.Errorf("patch node: %w", err)
	}
	return true, nil
}
