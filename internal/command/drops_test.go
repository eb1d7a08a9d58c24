package command

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers/sandbox"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/agent"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// dropsAgents are an agent on each of two nodes, for the pods of node.Cluster.
const dropsAgents = `
---
{apiVersion: v1, kind: Pod, metadata: {namespace: multi-networkpolicy-system, name: agent-here, uid: a1,
  labels: {app.kubernetes.io/name: multi-networkpolicy-nftables}}, spec: {nodeName: here, hostNetwork: true}, status: {phase: Running}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: multi-networkpolicy-system, name: agent-elsewhere, uid: a2,
  labels: {app.kubernetes.io/name: multi-networkpolicy-nftables}}, spec: {nodeName: elsewhere, hostNetwork: true}, status: {phase: Running}}
`

// startAgent starts an agent of version v7 on the node. The node and the plugins of the options are set here.
func startAgent(t *testing.T, n *node.Node, address string, o cache.Options) (stop func()) {
	t.Helper()
	server, err := clientcmd.BuildConfigFromFlags("", n.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	o.Node, o.NetworkPlugins = node.Name, cache.DefaultNetworkPlugins()
	ctx, cancel := context.WithCancel(logr.NewContext(t.Context(), testr.New(t)))
	done := make(chan error, 1)
	go func() {
		done <- agent.Run(ctx, agent.Config{
			Version: "v7", Server: server, Cache: o, RuntimeEndpoint: n.RuntimeSocket, NRISocket: sandbox.NRINone, HealthAddress: address,
		})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// output is a command that runs, with what it has printed.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// String returns everything that the command has printed.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// count returns how often the command has printed the text.
func (o *output) count(text string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Count(o.text.String(), text)
}

// follow runs the command drops of the program against the cluster of the node, until the test or stop ends it.
func follow(t *testing.T, p Program, n *node.Node, args string) (o *output, stop func()) {
	t.Helper()
	o = &output{}
	root := p.Root()
	root.SetArgs(strings.Fields("drops --kubeconfig " + n.Kubeconfig + " " + args))
	root.SetOut(o)
	root.SetErr(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("drops %s: %v", args, err)
		}
	})
	t.Cleanup(stop)
	return o, stop
}

// TestDropsOfCluster follows a real agent by port-forward, while it ends and starts again, and a node whose agent gives no answer.
func TestDropsOfCluster(t *testing.T) {
	withoutCluster(t)
	n := node.New(t)
	n.Load(node.Cluster + node.Policy + dropsAgents)
	n.StartRuntime("server")
	address := cluster.LoopbackAddress()
	stopAgent := startAgent(t, n, address, cache.Options{DropLog: cache.DropLogAll})
	n.API.SetLoopback("agent-here", address)
	n.Becomes("enforced", true, false)

	const (
		packet     = " DROPPED ns/server: tcp 10.9.0.3:"
		gone       = "node elsewhere, retrying: agent agent-elsewhere: failed to connect to localhost:10356: connection refused\n"
		both       = "following the agents of 1 of 2 nodes\n"
		here, none = "following the agents of 1 of 1 nodes\n", "following the agents of 0 of 1 nodes\n"
	)
	all, stopAll := follow(t, plugin, n, "")
	ofNode, _ := follow(t, Program{}, n, "--node here")
	ofPod, _ := follow(t, plugin, n, "--pod server -n ns")
	otherPod, _ := follow(t, plugin, n, "--pod ns/friend")
	ofNamespace, _ := follow(t, plugin, n, "-n ns -o json")
	for _, o := range []*output{all, ofNode, ofPod, otherPod, ofNamespace} {
		await.That(t, "the agents are followed", func() bool { return o.count("following the agents of") == 1 })
	}
	send := func() { n.Reaches("stranger", 100*time.Millisecond) }
	await.That(t, "a dropped packet", func() bool {
		send()
		return all.count(packet) > 0 && ofNode.count(packet) > 0 && ofPod.count(packet) > 0 && ofNamespace.count(`"pod":"server"`) > 0
	})
	for _, tc := range []struct {
		name   string
		of     *output
		counts map[string]int
	}{
		{"all nodes", all, map[string]int{gone: 1, both: 1, here: 0}},
		{"a node", ofNode, map[string]int{gone: 0, both: 0, here: 1}},
		{"a pod", ofPod, map[string]int{gone: 0, both: 0, here: 1}},
		{"a pod on another node", otherPod, map[string]int{gone: 1, none: 1, packet: 0}},
		{"a namespace", ofNamespace, map[string]int{gone: 1, both: 1}},
	} {
		for text, want := range tc.counts {
			if got := tc.of.count(text); got != want {
				t.Errorf("%s: %q is there %d times, want %d:\n%s", tc.name, text, got, want, tc.of)
			}
		}
	}

	stopAgent()
	await.That(t, "a note about the agent", func() bool {
		return all.count("node here, retrying: agent agent-here: the agent has ended the stream\n") == 1
	})
	startAgent(t, n, address, cache.Options{DropLog: cache.DropLogAll})
	await.That(t, "the agent is followed again", func() bool { return all.count("node here: following the agent again\n") == 1 })
	before := all.count(packet)
	await.That(t, "a dropped packet after the restart", func() bool { send(); return all.count(packet) > before })
	stopAll()
}

// TestDropsOfManyNodes checks the bound on the nodes that are followed.
func TestDropsOfManyNodes(t *testing.T) {
	withoutCluster(t)
	n := node.New(t)
	var pods strings.Builder
	for i := range 102 {
		fmt.Fprintf(&pods, `
---
{apiVersion: v1, kind: Pod, metadata: {namespace: multi-networkpolicy-system, name: agent-%d, uid: a%d,
  labels: {app.kubernetes.io/name: multi-networkpolicy-nftables}}, spec: {nodeName: node-%d, hostNetwork: true}, status: {phase: Pending}}
`, i, i, i)
	}
	n.Load(node.Cluster + pods.String())
	all, _ := follow(t, plugin, n, "")
	await.That(t, "the bound", func() bool {
		return all.count("following the agents of 0 of 100 nodes; there are 102: --node, --namespace or --pod selects others\n") == 1
	})
	if got := all.count("is in phase Pending\n"); got != 100 {
		t.Errorf("%d nodes were tried, want 100", got)
	}
}

// TestDropsMistakes gives command lines of drops that ask for nothing.
func TestDropsMistakes(t *testing.T) {
	withoutCluster(t)
	n := node.New(t)
	n.Load(node.Cluster)
	for _, tc := range []struct {
		p    Program
		args string
		code int
		want string
	}{
		{plugin, "--pod ns/missing", 1, "kubectl mnp: there is no pod ns/missing\n"},
		{plugin, "--pod missing", 2, `--pod "missing": must be NAMESPACE/NAME`},
		{plugin, "--pod ns/server -n other", 2, "different namespaces"},
		{plugin, "-n empty", 1, "no pod of namespace empty is on a node with a network of its own\n"},
		{plugin, "", 1, "there is no pod of the agent in namespace multi-networkpolicy-system\n"},
		{plugin, "--address 127.0.0.1:1", 2, "unknown flag --address"},
		{plugin, "--context x", 1, "--context x: the kubeconfig has no such context"},
		{Program{}, "--address 127.0.0.1:1", 2, "--address is for the agent of this node"},
	} {
		stdout, stderr, code := run(tc.p, "", strings.Fields("drops --kubeconfig "+n.Kubeconfig+" "+tc.args)...)
		if code != tc.code || !strings.Contains(stderr, tc.want) || stdout != "" {
			t.Errorf("%s: exit code %d, %s%s, want %d, %q", tc.args, code, stdout, stderr, tc.code, tc.want)
		}
		isPlain(t, stdout, stderr, code)
	}
	if _, stderr, code := run(Program{}, "", "drops", "--address", "127.0.0.1:1"); code != 1 ||
		stderr != program+": follow the agent of this node at 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused\n" {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}
