package informers

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// Source lists and watches objects as records, for Informers and Snapshot. FromClients, FromObjects and Files.Source return
// sources.
type Source struct {
	pods, namespaces, nads, policies toolscache.ListerWatcher

	// getPolicy reads a policy again. It returns nil and no error if the policy is gone.
	getPolicy func(ctx context.Context, key cache.Key) (*record, error)
	remote    bool // an API server, which sends bookmarks
}

// FromClients returns a source that reads from the API server. It does not connect yet.
func FromClients(config *rest.Config, s Settings) (Source, error) {
	core, err := NewCore(config)
	if err != nil {
		return Source{}, err
	}
	nads, err := s.newNADs(config)
	if err != nil {
		return Source{}, err
	}
	policies, err := s.newPolicies(config)
	if err != nil {
		return Source{}, err
	}
	ofPods := &fieldSelector{best: unfinished, known: unfinished}
	if s.Node != "" {
		ofPods.best = withNetwork // commands that explain one pod know the pods on the host's network, too
	}
	return Source{
		pods: converted(core.listPods, core.watchPods, ofPods, func(l *corev1.PodList) (items []*record) {
			for i := range l.Items {
				items = append(items, s.podRecordOf(&l.Items[i]))
				l.Items[i] = corev1.Pod{} // free its memory before the next pod is converted
			}
			return items
		}, func(o runtime.Object) *record {
			if p, ok := o.(*corev1.Pod); ok {
				return s.podRecordOf(p)
			}
			return nil
		}),
		namespaces: converted(core.listNamespaces, core.watchNamespaces, &fieldSelector{}, func(l *corev1.NamespaceList) (items []*record) {
			for i := range l.Items {
				items = append(items, namespaceRecordOf(&l.Items[i]))
			}
			return items
		}, func(o runtime.Object) *record {
			if ns, ok := o.(*corev1.Namespace); ok {
				return namespaceRecordOf(ns)
			}
			return nil
		}),
		nads: nads.listWatch(), policies: policies.listWatch(), getPolicy: policies.get, remote: true,
	}, nil
}

// converted returns a list and watch that converts the objects of a typed client into records. A bookmark has an object of the
// kind with nothing but a resource version, and becomes a record too.
func converted[L metav1.ListInterface](
	list func(context.Context, metav1.ListOptions) (L, error),
	watchAll func(context.Context, metav1.ListOptions) (watch.Interface, error),
	fields *fieldSelector, items func(L) []*record, item func(runtime.Object) *record,
) toolscache.ListerWatcher {
	return &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			l, err := ask(ctx, fields, o, list)
			switch {
			case err != nil:
				return nil, err
			// See errNoList: an answer without a version is no list.
			case l.GetResourceVersion() == "":
				return nil, errNoList
			}
			return &recordList{
				ListMeta: metav1.ListMeta{
					ResourceVersion: l.GetResourceVersion(), Continue: l.GetContinue(), RemainingItemCount: l.GetRemainingItemCount(),
				},
				Items: items(l),
			}, nil
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			w, err := ask(ctx, fields, o, watchAll)
			if err != nil || isHungUp(w) {
				return w, err
			}
			// An error event has a Status, which is no record; the reflector needs it as it is.
			return watch.Filter(w, func(e watch.Event) (watch.Event, bool) {
				if r := item(e.Object); r != nil {
					e.Object = r
				}
				return e, true
			}), nil
		},
	}
}

// Objects lists and watches API objects: pods and namespaces in Go types, NetworkAttachmentDefinitions and policies in
// Go types or unstructured. All four fields are required.
type Objects struct {
	Pods, Namespaces, NADs, Policies toolscache.ListerWatcher
}

// FromObjects returns a source that reads from the given lists and watches.
// A refetch lists all policies: these sources are local, so a list costs no request.
func FromObjects(o Objects, s Settings) Source {
	get := func(ctx context.Context, key cache.Key) (*record, error) {
		l, err := toolscache.ToListerWithContext(o.Policies).ListWithContext(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		items, err := s.recordsOf(l)
		i := slices.IndexFunc(items, func(r *record) bool { return r.Key == key })
		if err != nil || i < 0 {
			return nil, err
		}
		return items[i], nil
	}
	return Source{
		pods: s.records(o.Pods), namespaces: s.records(o.Namespaces), nads: s.records(o.NADs), policies: s.records(o.Policies),
		getPolicy: get,
	}
}

// records returns a list and watch that converts the objects of another list and watch into records.
func (s Settings) records(lw toolscache.ListerWatcher) toolscache.ListerWatcher {
	return &localListWatch{toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			l, err := toolscache.ToListerWithContext(lw).ListWithContext(ctx, o)
			if err != nil {
				return nil, err
			}
			items, err := s.recordsOf(l)
			if err != nil {
				return nil, err
			}
			m, err := meta.ListAccessor(l)
			if err != nil {
				return nil, err
			}
			return &recordList{ListMeta: metav1.ListMeta{ResourceVersion: m.GetResourceVersion()}, Items: items}, nil
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			w, err := toolscache.ToWatcherWithContext(lw).WatchWithContext(ctx, o)
			if err != nil {
				return nil, err
			}
			return watch.Filter(w, func(e watch.Event) (watch.Event, bool) {
				if r := s.recordOf(e.Object); r != nil {
					e.Object = r
				}
				return e, true
			}), nil
		},
	}}
}

// localListWatch makes reflectors list before they watch, since it sends no initial events.
type localListWatch struct{ toolscache.ListWatch }

// IsWatchListSemanticsUnSupported implements an optional interface of reflectors.
func (*localListWatch) IsWatchListSemanticsUnSupported() bool { return true }

// recordsOf returns the records of all objects in a list.
func (s Settings) recordsOf(list runtime.Object) ([]*record, error) {
	objects, err := meta.ExtractList(list)
	if err != nil {
		return nil, err
	}
	items := make([]*record, 0, len(objects))
	for _, o := range objects {
		r := s.recordOf(o)
		if r == nil {
			return nil, fmt.Errorf("a list has a %T", o)
		}
		items = append(items, r)
	}
	return items, nil
}

// recordOf returns the record of an object of any of the four kinds, and nil for any other object.
func (s Settings) recordOf(o runtime.Object) *record {
	// The default is the policy, since the kind of an unstructured object is NAD or policy only.
	fill := s.policyRecordOf
	switch o := o.(type) {
	case *corev1.Pod:
		return s.podRecordOf(o)
	case *corev1.Namespace:
		return namespaceRecordOf(o)
	case *netv1.NetworkAttachmentDefinition:
		fill = s.nadRecordOf
	case *mnpv1.MultiNetworkPolicy:
	case *unstructured.Unstructured:
		if o.GetKind() == KindNAD {
			fill = s.nadRecordOf
		}
	default:
		return nil
	}
	// The custom resources take the way of bytes from the API server, so they are read by the same code.
	data, err := json.Marshal(o)
	if err != nil {
		return &record{problem: policy.Words(err)}
	}
	return decoder{fill}.decodeObject(data)
}
