package remote

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/agents"
)

// nodes returns the nodes that the question selects, sorted. No node is an error.
func (q *Question) nodes(ctx context.Context) ([]string, error) {
	switch {
	case q.Node != "":
		return []string{q.Node}, nil
	case q.Filter.Namespace != "":
		return q.nodesOfPods(ctx)
	}
	all, err := q.Agents.All(ctx)
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("there is no pod of the agent in namespace %s", q.Agents.Namespace)
	}
	delete(all, "") // pods that are not scheduled
	return slices.Sorted(maps.Keys(all)), err
}

// nodesOfPods returns the nodes of the pods that the filter selects.
func (q *Question) nodesOfPods(ctx context.Context) ([]string, error) {
	o := metav1.ListOptions{FieldSelector: "status.phase!=Succeeded,status.phase!=Failed"}
	if q.Filter.Pod != "" {
		o.FieldSelector = "metadata.name=" + q.Filter.Pod
	}
	found, nodes := false, map[string]bool{}
	err := agents.EachPod(ctx, q.Agents.Core, q.Filter.Namespace, o, func(pod *corev1.Pod) {
		found = true
		if pod.Spec.NodeName != "" && !pod.Spec.HostNetwork {
			nodes[pod.Spec.NodeName] = true
		}
	})
	name := "pod " + q.Filter.Namespace + "/" + q.Filter.Pod
	switch {
	case err != nil:
		return nil, err
	case len(nodes) > 0:
		return slices.Sorted(maps.Keys(nodes)), nil
	case q.Filter.Pod == "":
		return nil, fmt.Errorf("no pod of namespace %s is on a node with a network of its own", q.Filter.Namespace)
	case !found:
		return nil, errors.New("there is no " + name)
	}
	return nil, errors.New(name + " is on no node, or on the host's network")
}
