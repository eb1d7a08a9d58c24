package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/apiserver"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/report"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/enforcement/query"
)

const (
	enforcementNamespace = "shop"
	agentNamespace       = "multi-networkpolicy-system"
	policyUID            = "00000000-0000-0000-0000-000000000000" // in the answers; not that of a policy, which makes the row longer by a reason
	fewPods              = 10                                     // pods of the smaller policy
)

// measureEnforcement measures the cost for a real API server of an answer about enforcement: by asking the agents, and by objects and
// Events that agents write. The kubelets are this program; every node has an agent and a pod of the policy.
func measureEnforcement(o *options) (text string, err error) {
	dir, err := os.MkdirTemp("", "scale-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx := context.Background()
	server, err := apiserver.Start(ctx, dir, apiserver.AlwaysAllow)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	m := &enforcementLoad{server: server, kubelets: newKubelets(), nodes: o.nodes}
	defer m.kubelets.server.Close()
	if m.client, err = kubernetes.NewForConfig(server.Config(apiserver.Token)); err != nil {
		return "", err
	}
	if err := m.create(ctx); err != nil {
		return "", err
	}
	lines := [][]string{{"", "requests", "received by the client", "sent", "CPU time of API server and etcd", "time"}}
	for _, step := range []struct {
		name string
		run  func(context.Context, *rest.Config) error
	}{
		{fmt.Sprintf("ask the agents, %d pods on as many nodes", fewPods), m.ask("few", fewPods)},
		{fmt.Sprintf("ask the agents, %d pods on as many nodes", m.nodes), m.ask("all", m.nodes)},
		{"status objects: write one for each node", m.writeStatus(ctx)},
		{"status objects: read them", m.readStatus},
		{"Events: write one for each node", m.writeEvents},
	} {
		line, err := m.measure(ctx, step.name, step.run)
		if err != nil {
			return "", fmt.Errorf("%s: %w", step.name, err)
		}
		lines = append(lines, line)
	}
	return report.Table(lines), nil
}

// enforcementLoad has a cluster with an agent and a pod on each node.
type enforcementLoad struct {
	server   *apiserver.Process
	client   *kubernetes.Clientset
	kubelets *kubelets
	nodes    int
}

func nodeName(i int) string { return fmt.Sprintf("worker-%04d", i) }

// create makes the objects.
func (m *enforcementLoad) create(ctx context.Context) error {
	if err := apiserver.CreateKinds(ctx, m.client); err != nil {
		return err
	}
	for _, name := range []string{enforcementNamespace, agentNamespace} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := m.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	for name, labels := range map[string]string{"all": `"app": "web"`, "few": `"few": "yes"`} {
		body := fmt.Sprintf(`{"apiVersion": "k8s.cni.cncf.io/v1beta1", "kind": "MultiNetworkPolicy", "metadata": {"name": %q,
			"annotations": {"k8s.v1.cni.cncf.io/policy-for": "net"}}, "spec": {"podSelector": {"matchLabels": {%s}}}}`, name, labels)
		if err := apiserver.Post(ctx, m.client, apiserver.PoliciesPath(enforcementNamespace), []byte(body)); err != nil {
			return err
		}
	}
	return concurrently(m.nodes, func(i int) error { return m.createNode(ctx, i) })
}

// createNode makes a node, its agent as large as that of the DaemonSet, and its pod.
func (m *enforcementLoad) createNode(ctx context.Context, i int) error {
	address, err := url.Parse(m.kubelets.server.URL)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(address.Port())
	if err != nil {
		return err
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName(i)}, Status: corev1.NodeStatus{
		Addresses:       []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address.Hostname()}},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(port)}},
	}}
	if _, err := m.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
		return err
	}
	c := cluster{pods: 1, namespaces: 1, policies: 1, spacing: 5}
	create := func(namespace, name string, labels map[string]string) (types.UID, error) {
		p := c.pod(0, "web")
		status := p.Status
		p.ObjectMeta = metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels, Annotations: p.Annotations}
		p.Spec.NodeName, p.Spec.HostNetwork = nodeName(i), namespace == agentNamespace
		for n := range p.Spec.Containers {
			p.Spec.Containers[n].Name, p.Spec.Containers[n].VolumeMounts = fmt.Sprintf("app-%d", n), nil
		}
		created, err := m.client.CoreV1().Pods(namespace).Create(ctx, p, metav1.CreateOptions{})
		if err != nil {
			return "", err
		}
		created.Status = status
		created.Status.Phase = corev1.PodRunning
		_, err = m.client.CoreV1().Pods(namespace).UpdateStatus(ctx, created, metav1.UpdateOptions{})
		return created.UID, err
	}
	if _, err := create(agentNamespace, nodeName(i), map[string]string{"app.kubernetes.io/name": "multi-networkpolicy-nftables"}); err != nil {
		return err
	}
	labels := map[string]string{"app": "web"}
	if i < fewPods {
		labels["few"] = "yes"
	}
	uid, err := create(enforcementNamespace, "web-"+nodeName(i), labels)
	m.kubelets.mu.Lock()
	defer m.kubelets.mu.Unlock()
	m.kubelets.pods[nodeName(i)] = uid
	return err
}

// ask asks the agents about a policy with so many pods, each on its own node.
func (m *enforcementLoad) ask(policy string, pods int) func(context.Context, *rest.Config) error {
	return func(ctx context.Context, config *rest.Config) error {
		r, err := query.Ask(ctx, query.Question{
			Config: config, Namespace: enforcementNamespace, Policy: policy, AgentNamespace: agentNamespace, AgentPort: 10356, Timeout: time.Minute,
		})
		if err != nil {
			return err
		}
		// The agents know no UID of the policy, which the report calls outdated; any other answer is a fault of the measurement.
		if s := r.Summary; s.Pods != pods || s.Nodes != pods || s.NotEnforced != pods {
			return fmt.Errorf("%s; %+v", s, r.Nodes[0])
		}
		return nil
	}
}

// statusPath is the path of the objects that stand for a status of each node: custom resources without a schema.
var statusPath = apiserver.NADsPath(enforcementNamespace)

// statusJSON returns the state of a policy on a node.
func statusJSON(i, version int) []byte {
	return fmt.Appendf(nil, `{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": {"name": %q},
		"status": {"policies": [{"name": "all", "version": "%d", "pods": 1, "enforced": 1, "since": "2026-01-01T00:00:00Z"}]}}`, nodeName(i), version)
}

// writeStatus returns a step in which each node writes its status, as after a change of a policy. The objects exist before.
func (m *enforcementLoad) writeStatus(ctx context.Context) func(context.Context, *rest.Config) error {
	created := concurrently(m.nodes, func(i int) error { return apiserver.Post(ctx, m.client, statusPath, statusJSON(i, 1)) })
	return func(ctx context.Context, config *rest.Config) error {
		if created != nil {
			return created
		}
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return err
		}
		return concurrently(m.nodes, func(i int) error {
			return client.Discovery().RESTClient().Patch(types.MergePatchType).AbsPath(statusPath, nodeName(i)).Body(statusJSON(i, 2)).Do(ctx).Error()
		})
	}
}

// readStatus lists the status of all nodes in pages.
func (m *enforcementLoad) readStatus(ctx context.Context, config *rest.Config) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	for next, n := "", 0; ; {
		data, err := client.Discovery().RESTClient().Get().AbsPath(statusPath).Param("limit", "500").Param("continue", next).Do(ctx).Raw()
		if err != nil {
			return err
		}
		var list struct {
			Metadata metav1.ListMeta
			Items    []json.RawMessage
		}
		if err := json.Unmarshal(data, &list); err != nil {
			return err
		}
		n += len(list.Items)
		if next = list.Metadata.Continue; next != "" {
			continue
		}
		if n != m.nodes {
			return fmt.Errorf("%d objects", n)
		}
		return nil
	}
}

// writeEvents creates an Event on the policy for each node.
func (m *enforcementLoad) writeEvents(ctx context.Context, config *rest.Config) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	return concurrently(m.nodes, func(i int) error {
		_, err := client.CoreV1().Events(enforcementNamespace).Create(ctx, &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Name: "all." + nodeName(i), Namespace: enforcementNamespace},
			InvolvedObject: corev1.ObjectReference{Kind: "MultiNetworkPolicy", APIVersion: "k8s.cni.cncf.io/v1beta1", Namespace: enforcementNamespace, Name: "all"},
			Reason:         "Enforced", Message: "version 2 is enforced in 1 pod of node " + nodeName(i), Type: corev1.EventTypeNormal,
			FirstTimestamp: metav1.Now(), LastTimestamp: metav1.Now(), Count: 1,
			Source: corev1.EventSource{Component: "multi-networkpolicy-nftables", Host: nodeName(i)},
		}, metav1.CreateOptions{})
		return err
	})
}

// measure runs a step with a client whose connections are counted.
func (m *enforcementLoad) measure(ctx context.Context, name string, run func(context.Context, *rest.Config) error) ([]string, error) {
	proxy, err := newCountingProxy("127.0.0.1:" + m.server.Port)
	if err != nil {
		return nil, err
	}
	defer proxy.listener.Close() //nolint:errcheck // nothing is accepted any more
	config := m.server.Config(apiserver.Token)
	config.Host = "https://" + proxy.listener.Addr().String()
	requests, err := m.requests(ctx)
	if err != nil {
		return nil, err
	}
	cpu, err := m.server.CPU()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := run(ctx, config); err != nil {
		return nil, err
	}
	took := time.Since(start)
	after, err := m.server.CPU()
	if err != nil {
		return nil, err
	}
	requestsAfter, err := m.requests(ctx)
	if err != nil {
		return nil, err
	}
	return []string{
		name, fmt.Sprint(requestsAfter - requests), report.Bytes(proxy.received.Load()), report.Bytes(proxy.sent.Load()),
		fmt.Sprintf("%.2f s", (after - cpu).Seconds()), fmt.Sprintf("%.1f s", took.Seconds()),
	}, nil
}

// requestCount matches a counter of requests in the metrics of the API server.
var requestCount = regexp.MustCompile(`(?m)^apiserver_request_total\{([^}]*)\} (\S+)$`)

// requests returns the number of requests about pods, Events and custom resources that the API server has answered.
func (m *enforcementLoad) requests(ctx context.Context) (int, error) {
	page, err := m.client.Discovery().RESTClient().Get().AbsPath("/metrics").Do(ctx).Raw()
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for _, match := range requestCount.FindAllStringSubmatch(string(page), -1) {
		// The loops of the API server itself read and write these resources all the time.
		if !strings.Contains(match[1], `resource="pods"`) && !strings.Contains(match[1], "k8s.cni.cncf.io") && !strings.Contains(match[1], `resource="events"`) {
			continue
		}
		n, err := strconv.ParseFloat(match[2], 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return int(sum), nil
}

// countingProxy passes TCP connections on, and counts the bytes.
type countingProxy struct {
	listener       net.Listener
	received, sent atomic.Uint64 // by the client
}

func newCountingProxy(to string) (*countingProxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &countingProxy{listener: l}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go p.pass(client, to)
		}
	}()
	return p, nil
}

func (p *countingProxy) pass(client net.Conn, to string) {
	defer client.Close() //nolint:errcheck // the other end may be gone
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close() //nolint:errcheck // see above
	go func() {
		defer client.Close()                                 //nolint:errcheck // see above
		io.Copy(client, &countedReader{server, &p.received}) //nolint:errcheck // the end of a connection
	}()
	io.Copy(server, &countedReader{client, &p.sent}) //nolint:errcheck // see above
}

type countedReader struct {
	io.Reader
	n *atomic.Uint64
}

func (r *countedReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.n.Add(uint64(n))
	return n, err
}
