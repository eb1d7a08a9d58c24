package agents

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

const (
	// PageSize bounds the objects in an answer of the API server.
	PageSize = 500
	// fewNodes is the number of nodes up to which agents are looked up node by node, which takes a request for each node. For more
	// nodes, a list of all agents takes fewer requests.
	fewNodes = 20
	// label is a label of the agent's pods in all manifests of this project.
	label = "app.kubernetes.io/name=multi-networkpolicy-nftables"
)

// Client finds and asks the agents of a cluster.
type Client struct {
	Core      *informers.Core
	Namespace string // of the agents' pods
	config    *rest.Config
	port      uint16
}

// NewClient returns a client for the agents whose pods are in the namespace. port is the port of the agents on loopback of each node.
func NewClient(config *rest.Config, namespace string, port uint16) (*Client, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1 // the number of requests at the same time is bounded
	core, err := informers.NewCore(config)
	if err != nil {
		return nil, err
	}
	return &Client{Core: core, Namespace: namespace, config: config, port: port}, nil
}

// Pod is the pod of the agent on a node.
type Pod struct {
	Name    string
	Problem string // why it cannot be asked; empty: it runs
	rank    int    // of several pods on a node, the highest is asked
}

// OnNodes returns the agents of the nodes, by node. It may return agents of other nodes too.
func (c *Client) OnNodes(ctx context.Context, nodes []string) (map[string]Pod, error) {
	if len(nodes) > fewNodes {
		return c.All(ctx)
	}
	found, errs := make([]map[string]Pod, len(nodes)), make([]error, len(nodes))
	Parallel(len(nodes), func(i int) { found[i], errs[i] = c.list(ctx, "spec.nodeName="+nodes[i]) })
	agents := map[string]Pod{}
	for i, node := range nodes {
		if errs[i] != nil {
			return nil, errs[i]
		}
		if pod, ok := found[i][node]; ok {
			agents[node] = pod
		}
	}
	return agents, nil
}

// All returns the agents of all nodes, by node.
func (c *Client) All(ctx context.Context) (map[string]Pod, error) { return c.list(ctx, "") }

func (c *Client) list(ctx context.Context, fields string) (map[string]Pod, error) {
	agents := map[string]Pod{}
	err := EachPod(ctx, c.Core, c.Namespace, metav1.ListOptions{LabelSelector: label, FieldSelector: fields}, func(obj *corev1.Pod) {
		next := podOf(obj)
		if before, found := agents[obj.Spec.NodeName]; !found || before.rank < next.rank {
			agents[obj.Spec.NodeName] = next
		}
	})
	return agents, err
}

func podOf(obj *corev1.Pod) Pod {
	p := Pod{Name: obj.Name}
	switch {
	case obj.Status.Phase != corev1.PodRunning:
		p.Problem = fmt.Sprintf("the agent's pod %s is in phase %s", obj.Name, obj.Status.Phase)
	case obj.DeletionTimestamp != nil:
		p.rank = 1
	default:
		p.rank = 2
	}
	return p
}

// EachPod calls f with each pod of a namespace that o selects.
func EachPod(ctx context.Context, core *informers.Core, namespace string, o metav1.ListOptions, f func(*corev1.Pod)) error {
	o.Limit = PageSize
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

// atOnce is the number of nodes that are asked at the same time. Each question is a connection through the API server.
const atOnce = 16

// Parallel calls f with the numbers below n, at most 16 at the same time.
func Parallel(n int, f func(i int)) {
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
