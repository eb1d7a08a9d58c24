package query

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/agents"
)

const (
	// maxSelector is the length of a selector, in bytes, up to which the API server applies it. It is part of the URL.
	maxSelector = 2000
	// running selects pods that have not ended: others have no network any more.
	running = "status.phase!=Succeeded,status.phase!=Failed"
)

// readPolicies returns the policies of a namespace, or of all namespaces if it is empty, sorted. name limits them to a policy.
func readPolicies(ctx context.Context, core *informers.Core, namespace, name string) ([]*policy.Policy, error) {
	limits := policy.DefaultLimits()
	var policies []*policy.Policy
	o := metav1.ListOptions{Limit: agents.PageSize}
	if name != "" {
		o.FieldSelector = "metadata.name=" + name
	}
	for {
		data, err := core.Policies(ctx, namespace, o)
		if err != nil {
			return nil, fmt.Errorf("list policies: %w", err)
		}
		var list struct {
			Metadata metav1.ListMeta
			Items    []struct {
				Metadata metav1.ObjectMeta
				Spec     json.RawMessage
			}
		}
		if err := json.Unmarshal(data, &list); err != nil {
			return nil, fmt.Errorf("list policies: the answer is no list of the API: %w", err)
		}
		for _, item := range list.Items {
			m := &item.Metadata
			object := policy.Object{Key: policy.Key{Namespace: m.Namespace, Name: m.Name}, UID: m.UID, Version: m.ResourceVersion, Spec: item.Spec}
			if networks, ok := m.Annotations[policy.ForAnnotation]; ok {
				object.Networks = &networks
			}
			policies = append(policies, policy.Compile(object, &limits))
		}
		if o.Continue = list.Metadata.Continue; o.Continue == "" {
			break
		}
	}
	slices.SortFunc(policies, func(a, b *policy.Policy) int { return policy.CompareKeys(a.Key, b.Key) })
	return policies, nil
}

// selectedPods returns the pods that policies of a namespace select and that are not on the host's network, each with these
// policies.
func selectedPods(ctx context.Context, core *informers.Core, namespace string, policies []*policy.Policy) ([]selectedPod, error) {
	limits := policy.DefaultLimits()
	o := metav1.ListOptions{FieldSelector: running}
	if text := policies[0].Pods.String(); len(policies) == 1 && len(text) <= maxSelector {
		o.LabelSelector = text
	}
	var pods []selectedPod
	err := agents.EachPod(ctx, core, namespace, o, func(obj *corev1.Pod) {
		pod := cache.NewPod(obj, obj.Spec.NodeName, &limits)
		if pod.Outside != "" {
			return
		}
		selected := selectedPod{PodID: cache.PodID{Key: pod.Key, UID: pod.UID}, node: pod.Node}
		for _, p := range policies {
			if pod.CutLabels || p.Pods.Matches(&pod.Labels) {
				selected.policies = append(selected.policies, p)
			}
		}
		if len(selected.policies) > 0 {
			pods = append(pods, selected)
		}
	})
	return pods, err
}

// selectedPod is a pod that policies select.
type selectedPod struct {
	cache.PodID
	node     string // empty: not scheduled
	policies []*policy.Policy
}
