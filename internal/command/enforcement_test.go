package command

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/enforcement/query"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// enforcementPods are an agent on each of four nodes, one of them Pending, and pods of a policy "all" on these nodes, on a node without
// an agent, and on no node.
const enforcementPods = `
---
{apiVersion: v1, kind: Pod, metadata: {namespace: multi-networkpolicy-system, name: agent-here, uid: a1,
  labels: {app.kubernetes.io/name: multi-networkpolicy-nftables}}, spec: {nodeName: here, hostNetwork: true}, status: {phase: Running}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: multi-networkpolicy-system, name: agent-elsewhere, uid: a2,
  labels: {app.kubernetes.io/name: multi-networkpolicy-nftables}}, spec: {nodeName: elsewhere, hostNetwork: true}, status: {phase: Running}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: multi-networkpolicy-system, name: agent-pending, uid: a3,
  labels: {app.kubernetes.io/name: multi-networkpolicy-nftables}}, spec: {nodeName: pending, hostNetwork: true}, status: {phase: Pending}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: p1, uid: p1}, spec: {nodeName: pending}, status: {phase: Running}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: p2, uid: p2}, spec: {nodeName: bare}, status: {phase: Running}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: p3, uid: p3}, status: {phase: Pending}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: ended, uid: ended}, spec: {nodeName: bare}, status: {phase: Succeeded}}
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: all, uid: all,
  annotations: {k8s.v1.cni.cncf.io/policy-for: net}}, spec: {podSelector: {}, ingress: []}}
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: nobody, uid: nobody,
  annotations: {k8s.v1.cni.cncf.io/policy-for: net}}, spec: {podSelector: {matchLabels: {no: pod}}, ingress: []}}
`

// TestEnforcement asks a cluster with a real agent, and with nodes whose agents give no answer.
func TestEnforcement(t *testing.T) {
	withoutCluster(t)
	n := node.New(t)
	n.Load(node.Cluster + node.Policy + enforcementPods)
	n.StartRuntime("server")
	address := cluster.LoopbackAddress()
	startAgent(t, n, address, cache.Options{})
	n.API.SetLoopback("agent-here", address)
	ask := func(args string) (stdout, stderr string, code int) {
		return run(plugin, "", strings.Fields("enforcement --kubeconfig "+n.Kubeconfig+" "+args)...)
	}
	await.That(t, "a policy is enforced", func() bool {
		stdout, stderr, code := ask("-n ns p")
		t.Log(stdout, stderr)
		return code == 0 && strings.Contains(stdout, "Enforced  ns/p    server  here  ") &&
			strings.Contains(stdout, "\n1 policy, 1 pod on 1 node: 1 enforced, 0 not enforced, 0 unknown, 0 without effect\n")
	})
	stdout, stderr, code := ask("-A -o json")
	var r query.Report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != 1 || stderr != "" {
		t.Fatalf("exit code %d, %v, %s", code, err, stderr)
	}
	var rows []string
	for _, row := range r.Rows {
		text := []string{string(row.State), row.Policy, row.Pod, row.Node}
		for _, reason := range row.Reasons {
			text = append(text, reason.Reason)
		}
		rows = append(rows, strings.Join(text, " "))
	}
	if diff := cmp.Diff([]string{
		"Unknown all p2 bare no_agent",
		"Unknown all friend elsewhere agent_unreachable",
		"Unknown all p1 pending no_agent",
		"Enforced all server here", "Enforced p server here",
		"NoEffect all p3  not_scheduled", "NoEffect nobody   no_pods",
	}, rows); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(query.Summary{Policies: 3, Pods: 5, Nodes: 4, Unknown: 3, Enforced: 2, NoEffect: 2}, r.Summary); diff != "" {
		t.Error(diff)
	}
	if here := r.Nodes[2]; here.Name != "here" || here.Agent != "agent-here" || here.Version != "v7" || here.Started == nil || here.Error != "" {
		t.Errorf("%+v", here)
	}
	if gone := r.Nodes[1]; !strings.Contains(gone.Error, "failed to connect to localhost:10356: connection refused") {
		t.Errorf("%+v", gone)
	}
	for _, tc := range []struct {
		args string
		code int
		want string
	}{
		{"ns/nobody", 0, "NoEffect  ns/nobody  -    -     -      no_pods: the policy selects no pod\n1 policy, 0 pods on 0 nodes: 0 enforced"},
		{"-n ns missing", 2, "kubectl mnp: there is no policy ns/missing\n"},
		{"-n ns -o xml", 2, `--output "xml": must be one of text, json, yaml`},
		{"-n ns -A", 2, "exclude each other"},
		{"p -A", 2, "without POLICY"},
		{"p q", 2, "at most one policy"},
		{"a/b/c", 2, "the policy must be NAME or NAMESPACE/NAME"},
		{"--timeout 0 p", 2, "must be more than 0"},
		{"-n ns -o yaml p", 0, "summary:\n  enforced: 1\n"},
		{"-n empty", 0, "0 policies, 0 pods on 0 nodes: 0 enforced"},
		{"-A --agent-namespace nowhere", 1, "no_agent: no pod of the agent is on the node, in namespace nowhere"},
	} {
		stdout, stderr, code := ask(tc.args)
		if code != tc.code || !strings.Contains(stdout+stderr, tc.want) {
			t.Errorf("%s: exit code %d, %s%s, want %q", tc.args, code, stdout, stderr, tc.want)
		}
	}
	if stdout, _, _ := run(plugin, "", "__complete", "enforcement", "--kubeconfig", n.Kubeconfig, "-n", "ns", "no"); stdout != "nobody\n:4\n" {
		t.Errorf("completion: %q", stdout)
	}
	// An agent that hangs.
	hangs, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	n.API.SetLoopback("agent-here", hangs.Addr().String())
	if stdout, _, code := ask("-n ns p --timeout 300ms"); code != 1 || !strings.Contains(stdout, "agent_unreachable: agent agent-here: no answer in time\n") {
		t.Errorf("an agent that hangs: exit code %d, %s", code, stdout)
	}
	n.API.SetLoopback("agent-here", address)

	// With many nodes, the agents come from a list. Of two agents on a node, the one that does not end is asked.
	many := strings.Builder{}
	for i := range 30 {
		fmt.Fprintf(&many, "---\n{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: m%d, uid: m%d}, spec: {nodeName: many-%d}, status: {phase: Running}}\n", i, i, i)
	}
	for _, name := range []string{"a-ending", "z-ending"} {
		fmt.Fprintf(&many, `---
{apiVersion: v1, kind: Pod, metadata: {namespace: multi-networkpolicy-system, name: %s, uid: %s, deletionTimestamp: "2026-01-01T00:00:00Z",
  labels: {app.kubernetes.io/name: multi-networkpolicy-nftables}}, spec: {nodeName: here, hostNetwork: true}, status: {phase: Running}}
`, name, name)
	}
	n.Load(node.Cluster + node.Policy + enforcementPods + many.String())
	await.That(t, "many nodes", func() bool {
		stdout, _, code := ask("-n ns all")
		return code == 1 && strings.Contains(stdout, "\n1 policy, 35 pods on 34 nodes: 1 enforced, 0 not enforced, 33 unknown, 1 without effect\n")
	})
}
