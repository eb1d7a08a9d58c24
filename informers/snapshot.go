package informers

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/pager"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// Snapshot lists all objects of a source once and gives them to the sink, for commands that do not watch. It calls found for each
// object with problems; found may be nil.
func Snapshot(ctx context.Context, source Source, sink Sink, found func(kind string, key cache.Key, problems []policy.Problem)) error {
	for _, k := range []struct {
		kind
		list toolscache.ListerWatcher
	}{
		// Policies come after their networks and namespaces, and pods last. The result does not depend on the order.
		{kinds.namespace, source.namespaces}, {kinds.nad, source.nads}, {kinds.policy, source.policies}, {kinds.pod, source.pods},
	} {
		// The pager lists in parts, so that the response for a large cluster does not come at once.
		p := pager.New(toolscache.ToListerWithContext(k.list).ListWithContext)
		err := p.EachListItem(ctx, metav1.ListOptions{}, func(obj runtime.Object) error {
			r, ok := obj.(*record)
			if !ok {
				return fmt.Errorf("a list has a %T", obj)
			}
			problems := undecodable(r.problem)
			if r.problem == "" {
				problems = k.upsert(sink, r)
			}
			if found != nil && len(problems) > 0 {
				found(k.name, r.Key, problems)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("list objects of kind %s: %w", k.name, err)
		}
	}
	return nil
}
