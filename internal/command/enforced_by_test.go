package command

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// onNetwork is the manifest of a pod on a network of its own with this plugin type, and of a policy for the network. All have the
// name.
func onNetwork(name, pluginType string) string {
	return strings.NewReplacer("NAME", name, "TYPE", pluginType).Replace(`
---
{apiVersion: k8s.cni.cncf.io/v1, kind: NetworkAttachmentDefinition, metadata: {namespace: ns, name: NAME, uid: NAME},
  spec: {config: '{"type": "TYPE"}'}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: NAME, uid: NAME, labels: {app: NAME}, annotations: {
  k8s.v1.cni.cncf.io/network-status: '[{"name": "ns/NAME", "interface": "net1", "ips": ["10.9.0.9"]}]'}},
  spec: {nodeName: here}, status: {phase: Running}}
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: NAME, uid: NAME,
  annotations: {k8s.v1.cni.cncf.io/policy-for: NAME}}, spec: {podSelector: {matchLabels: {app: NAME}}, ingress: []}}
`)
}

// TestEnforcedBy checks that policies for networks of OVN-Kubernetes cause no Event, no line in the log and no metric that
// an alert reads. The pod on a network that nobody enforces shows that the agent reports such networks.
func TestEnforcedBy(t *testing.T) {
	for _, tc := range []struct {
		name     string
		args     []string
		reported []string // policies with an Event
	}{
		{"by default", nil, []string{"nobody"}},
		{"switched off", []string{"--enforced-by=none"}, []string{"nobody", "ovn"}},
		{"another type", []string{"--enforced-by=ptp=Somebody"}, []string{"ovn"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			n := node.New(t)
			n.Load(node.Cluster + onNetwork("ovn", "ovn-k8s-cni-overlay") + onNetwork("nobody", "ptp"))
			n.Hosts["ovn"], n.Hosts["nobody"] = n.Hosts["friend"], n.Hosts["stranger"]
			n.StartRuntime("ovn", "nobody")
			address := cluster.LoopbackAddress()
			p := startProcess(t, n, append(tc.args, "--metrics-bind-address="+address)...)
			p.says("All inputs in sync")
			await.That(t, "the Events", func() bool { return len(reported(n)) >= len(tc.reported) })
			time.Sleep(time.Second) // an Event too many comes with the others
			if got := reported(n); !slices.Equal(got, tc.reported) {
				t.Errorf("policies with Events: %q, want %q", got, tc.reported)
			}
			for _, name := range []string{"ovn", "nobody"} {
				if got, want := strings.Contains(p.logged(), `"ns/`+name+`"`), slices.Contains(tc.reported, name); got != want {
					t.Errorf("in the log: %t for %s, want %t:\n%s", got, name, want, p.logged())
				}
			}
			want := map[int]string{1: "1", 2: "2"}[len(tc.reported)]
			_, metrics := node.Get(t, "http://"+address+"/metrics")
			for line := range strings.Lines(metrics) {
				value, isReason := strings.CutPrefix(line, "multi_networkpolicy_pods_not_enforced{reason=")
				expected := "0"
				if strings.HasPrefix(value, `"unsupported_plugin"`) {
					expected = want
				}
				if isReason && !strings.HasSuffix(line, " "+expected+"\n") {
					t.Errorf("%s, want %s", line, expected)
				}
			}
			if !strings.Contains(metrics, `reason="unsupported_plugin"`) {
				t.Errorf("no such metric:\n%s", metrics)
			}
		})
	}
}

// reported returns the names of the policies with a Warning Event, sorted.
func reported(n *node.Node) (names []string) {
	for _, e := range n.API.Events() {
		if e.InvolvedObject.Kind == "MultiNetworkPolicy" && !slices.Contains(names, e.InvolvedObject.Name) {
			names = append(names, e.InvolvedObject.Name)
		}
	}
	slices.Sort(names)
	return names
}
