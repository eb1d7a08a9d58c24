package sandbox

import (
	"cmp"
	"context"
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// PodSandbox is a sandbox of the node, for commands that list all of them once.
type PodSandbox struct {
	cache.Sandbox
	Err error // why its network namespace is unknown
}

// List asks the runtime once for the sandboxes that are ready, sorted by pod. It leaves out the sandboxes on the host's
// network, and those whose network is torn down.
func List(ctx context.Context, endpoint, hostPrefix string) ([]PodSandbox, error) {
	s := New(Config{Endpoint: endpoint, HostPrefix: hostPrefix})
	defer s.disconnect(ctx)
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	sandboxes, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	var found []PodSandbox
	for _, p := range sandboxes {
		netNS, err := s.netNSOf(ctx, p.GetId())
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
