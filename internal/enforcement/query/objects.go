package query

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

const (
	// pageSize bounds the objects in an answer of the API server.
	pageSize = 500
	// fewNodes is the number of nodes up to which agents are looked up node by node, which takes a request for each node. For more
	// nodes, a list of all agents takes fewer requests.
	fewNodes = 20
	// maxSelector is the length of a selector, in bytes, up to which the API server applies it. It is part of the URL.
	maxSelector = 2000
	// agentLabel is a label of the agent's pods in all manifests of this project.
	agentLabel = "app.kubernetes.io/name=multi-networkpolicy-nftables"
	// running selects pods that have not ended: others have no network any more.
	running = "status.phase!=Succeeded,status.phase!=Failed"
)

// readPolicies returns the policies of a namespace, or of all namespaces if it is empty, sorted. name limits them to a policy.
func readPolicies(ctx context.Context, core *informers.Core, namespace, name string) ([]*policy.Policy, error) {
	limits := policy.DefaultLimits()
	var policies []*policy.Policy
	o := metav1.ListOptions{Limit: pageSize}
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

// readPods calls f with each pod of a namespace that o selects.
func readPods(ctx context.Context, core *informers.Core, namespace string, o metav1.ListOptions, f func(*corev1.Pod)) error {
	o.Limit = pageSize
	for {
		list, err := core.Pods(ctx, namespace, o)
		if err != nil {
			return fmt.Errorf("list pods of namespace %s: %w", namespace, err)
		}
		for i := range list.Items {
			f(&list.Items[i])
		}
		if o.Continue = list.Continue; o.Continue == "" {
			return nil
		}
	}
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
	err := readPods(ctx, core, namespace, o, func(obj *corev1.Pod) {
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

// agentPod is the pod of the agent on a node.
type agentPod struct {
	name    string
	problem string // why it cannot be asked; empty: it runs
	rank    int    // of several pods on a node, the highest is asked
}

// readAgents returns the agents of the nodes, by node. Other nodes may be in the result.
func readAgents(ctx context.Context, core *informers.Core, namespace string, nodes []string) (map[string]agentPod, error) {
	agents := map[string]agentPod{}
	var mu sync.Mutex
	add := func(obj *corev1.Pod) {
		mu.Lock()
		defer mu.Unlock()
		next := agentPodOf(obj)
		if before, found := agents[obj.Spec.NodeName]; !found || before.rank < next.rank {
			agents[obj.Spec.NodeName] = next
		}
	}
	if len(nodes) > fewNodes {
		err := readPods(ctx, core, namespace, metav1.ListOptions{LabelSelector: agentLabel}, add)
		return agents, err
	}
	errs := make([]error, len(nodes))
	parallel(len(nodes), func(i int) {
		errs[i] = readPods(ctx, core, namespace, metav1.ListOptions{LabelSelector: agentLabel, FieldSelector: "spec.nodeName=" + nodes[i]}, add)
	})
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return agents, nil
}

func agentPodOf(obj *corev1.Pod) agentPod {
	a := agentPod{name: obj.Name}
	switch {
	case obj.Status.Phase != corev1.PodRunning:
		a.problem = fmt.Sprintf("the agent's pod %s is in phase %s", obj.Name, obj.Status.Phase)
	case obj.DeletionTimestamp != nil:
		a.rank = 1
	default:
		a.rank = 2
	}
	return a
}

// atOnce is the number of nodes that are asked at the same time. Each question is a connection through the API server.
const atOnce = 16

// parallel calls f with the numbers below n, at most atOnce at the same time.
func parallel(n int, f func(i int)) {
	var wait sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i := range n {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			f(i)
		})
	}
	wait.Wait()
}
