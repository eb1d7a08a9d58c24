package informers

import (
	"context"
	"fmt"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/pager"
)

// Snapshot gives the sink all objects that a source has now, once. For who wants to look, not to follow.
func Snapshot(ctx context.Context, source Source, sink Sink) error {
	for _, k := range []struct {
		name string
		list toolscache.ListerWatcher
	}{
		{kindNamespace, source.Namespaces}, {kindNAD, source.NADs}, {kindPolicy, source.Policies}, {kindPod, source.Pods},
	} {
		p := pager.New(toolscache.ToListerWithContext(k.list).ListWithContext)
		err := p.EachListItem(ctx, metav1.ListOptions{}, func(obj runtime.Object) error {
			upsertInto(sink, obj)
			return nil
		})
		if err != nil {
			return fmt.Errorf("list objects of kind %s: %w", k.name, err)
		}
	}
	return nil
}

// upsertInto drops the problems: a sink that wants them sees them.
func upsertInto(sink Sink, obj runtime.Object) {
	switch o := obj.(type) {
	case *corev1.Namespace:
		sink.UpsertNamespace(o)
	case *netv1.NetworkAttachmentDefinition:
		sink.UpsertNAD(o)
	case *mnpv1.MultiNetworkPolicy:
		sink.UpsertPolicy(o)
	case *corev1.Pod:
		sink.UpsertPod(o)
	}
}
