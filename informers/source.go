package informers

import (
	"context"
	"fmt"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	mnpclient "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/client/clientset/versioned"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	netclient "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/client/clientset/versioned"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
)

// Source is where the objects come from: one list and watch for each kind. FromClients and Files give one.
type Source struct {
	Pods       toolscache.ListerWatcher
	Namespaces toolscache.ListerWatcher
	NADs       toolscache.ListerWatcher
	Policies   toolscache.ListerWatcher
}

// unfinished leaves out the pods that have ended: they are no peers and have no network any more. The API server then
// reports a pod as deleted when it ends.
const unfinished = "status.phase!=" + string(corev1.PodSucceeded) + ",status.phase!=" + string(corev1.PodFailed)

// FromClients is the API server. It opens no connection yet.
func FromClients(config *rest.Config) (Source, error) {
	kube, err := kubernetes.NewForConfig(config) // speaks protobuf unless the config says otherwise
	if err != nil {
		return Source{}, fmt.Errorf("client of the core API: %w", err)
	}
	nads, err := netclient.NewForConfig(config)
	if err != nil {
		return Source{}, fmt.Errorf("client of the NetworkAttachmentDefinition API: %w", err)
	}
	policies, err := mnpclient.NewForConfig(config)
	if err != nil {
		return Source{}, fmt.Errorf("client of the MultiNetworkPolicy API: %w", err)
	}
	return fromClientsets(kube, nads, policies), nil
}

func fromClientsets(kube kubernetes.Interface, nads netclient.Interface, policies mnpclient.Interface) Source {
	all := metav1.NamespaceAll
	return Source{
		Pods:       listWatch[*corev1.PodList](kube.CoreV1().Pods(all), kube, unfinished),
		Namespaces: listWatch[*corev1.NamespaceList](kube.CoreV1().Namespaces(), kube, ""),
		NADs: listWatch[*netv1.NetworkAttachmentDefinitionList](
			nads.K8sCniCncfIoV1().NetworkAttachmentDefinitions(all), nads, ""),
		Policies: listWatch[*mnpv1.MultiNetworkPolicyList](
			policies.K8sCniCncfIoV1beta1().MultiNetworkPolicies(all), policies, ""),
	}
}

// client is the part of a typed client that an informer needs.
type client[L runtime.Object] interface {
	List(ctx context.Context, opts metav1.ListOptions) (L, error)
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
}

// listWatch joins a typed client and a field selector. The clientset says whether it can do streaming lists.
func listWatch[L runtime.Object](c client[L], clientset any, fields string) toolscache.ListerWatcher {
	return toolscache.ToListWatcherWithWatchListSemantics(&toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = fields
			return c.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = fields
			return c.Watch(ctx, o)
		},
	}, clientset)
}
