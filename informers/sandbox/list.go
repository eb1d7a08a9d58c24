package sandbox

import (
	"cmp"
	"context"
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// PodSandbox is a sandbox of the node, as List returns it. With an Err, the other fields but NetNS are set.
type PodSandbox struct {
	cache.Sandbox
	Err error // why NetNS is unknown; nil: it is known
}

// List returns the sandboxes that are ready, sorted by pod, for commands that do not follow the runtime. It leaves out sandboxes
// on the host's network and sandboxes with a network that is torn down. Endpoint and prefix are those of Config.
func List(ctx context.Context, endpoint, hostPrefix string) ([]PodSandbox, error) {
	// The Sandboxes are only used for their client; they never run.
	s := New(Config{Endpoint: endpoint, HostPrefix: hostPrefix})
	defer s.disconnect(ctx)
	connecting := ctx
	// A command logs the choice of the socket only if there is a choice.
	if sockets, err := findEndpoints(endpoint, hostPrefix); err == nil && len(sockets) == 1 {
		connecting = quiet(ctx)
	}
	if err := s.connect(connecting); err != nil {
		return nil, err
	}
	sandboxes, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	var found []PodSandbox
	for _, p := range sandboxes {
		netNS, err := s.netNSOf(ctx, p.GetId())
		// An empty path without an error: on the host's network, or torn down.
		if err == nil && netNS == "" {
			continue
		}
		found = append(found, PodSandbox{
			Sandbox: cache.Sandbox{ID: p.GetId(), Pod: keyOf(p.GetMetadata()), NetNS: netNS, Handler: p.GetRuntimeHandler()}, Err: err,
		})
	}
	slices.SortFunc(found, func(a, b PodSandbox) int {
		return cmp.Or(cmp.Compare(a.Pod.Namespace, b.Pod.Namespace), cmp.Compare(a.Pod.Name, b.Pod.Name), cmp.Compare(a.ID, b.ID))
	})
	return found, nil
}
