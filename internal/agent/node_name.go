package agent

import (
	"context"
	"time"

	"github.com/go-logr/logr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// nodeNameInterval is the period between checks of the name of the node.
const nodeNameInterval = 30 * time.Second

// watchNodeName logs once if the runtime has pods, but none of them is a pod of this node according to the API server.
// The agent then has another name for the node than the kubelet, and enforces nothing. Tables in force stay.
// It returns after the log line, or when the context ends.
func watchNodeName(ctx context.Context, state *cache.Cache, node string, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	// Twice in a row, so that a moment without local pods does not count.
	for wrong := 0; wrong < 2; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		s := state.Stats()
		// A single local pod shows that the name is right.
		if wrong++; s.UnknownSandboxes == 0 || s.LocalPods > 0 {
			wrong = 0
		}
	}
	logr.FromContextOrDiscard(ctx).Info("No pod of the container runtime is a pod of this node by the API server, so no policy is enforced; "+
		"is the name of the node right (--hostname-override)?", "node", node, "sandboxes", state.Stats().UnknownSandboxes)
}
