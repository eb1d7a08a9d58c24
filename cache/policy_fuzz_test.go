package cache

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fuzzCluster has pods for the addresses and ports of probes, on the networks of the policy's namespace and another.
func fuzzCluster() []metav1.Object {
	return []metav1.Object{
		model.NewNamespace("a", "app=x"), model.NewNamespace("b", "app=y tier=z"),
		model.NewNAD("a/one", "macvlan"), model.NewNAD("a/two", "macvlan"), model.NewNAD("b/one", "other"),
		model.WithPorts(model.NewPod("a/pod-0", "app=x tier=y", "net1 a/one 10.0.0.1 fd00::1", "net2 a/two 10.0.1.1", "eth0 three 192.168.0.1"),
			"http=80/TCP", "dns=53/UDP"),
		model.WithPorts(model.NewPod("a/pod-1", "app=y", "net1 a/one 10.0.0.2 fd00::2", "net2 b/one 10.1.0.1"), "http=8080/TCP"),
		model.WithPorts(model.NewPeer("b/pod-2", "app=x zone=z", "net1 a/one 10.0.0.3 fd01::1"), "http=81/TCP", "dns=53/UDP"),
	}
}

// FuzzPolicy: whatever a policy says, nothing panics, each interface that it isolates is closed but for what it allows,
// and that is what its valid part means, to the oracle, which knows nothing of how the cache reads it. It neither opens
// nor closes anything for another policy's pods.
func FuzzPolicy(f *testing.F) {
	for _, spec := range []string{
		`{}`, `{"policyTypes": ["Egress", "x"]}`, `{"podSelector": {"matchLabels": {"app": "x"}}, "ingress": [{}], "egress": [{}]}`,
		`{"podSelector": {"matchExpressions": [{"key": "app", "operator": "In"}]}}`,
		`{"ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80}, {"port": "http"}, {"protocol": "SCTP"}, {}]}]}`,
		`{"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.2/31", "x"]}}, {"ipBlock": {"cidr": "10.0.0.0/33"}}]}]}`,
		`{"ingress": [{"from": [{"ipBlock": {"cidr": "::ffff:10.0.0.0/104"}}, {"ipBlock": {"cidr": "fd00::/16"}}, {}]}]}`,
		`{"ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}, "podSelector": {}}]}, {"from": []}, {"ports": []}]}`,
		`{"ingress": [{"ports": [{"port": 80, "endPort": 79}, {"port": "http", "endPort": 90}, {"endPort": 9}, {"port": -1}, {"port": 70000}]}]}`,
		`{"egress": [{"to": [{"namespaceSelector": {"matchLabels": {"app": "y"}}}], "ports": [{"port": "dns", "protocol": "UDP"}]}]}`,
		`{"egress": [{"to": [{"namespaceSelector": {}, "podSelector": {"matchExpressions": [{"key": "app", "operator": "Bad"}]}}]}]}`,
	} {
		f.Add(spec, "one, a/two")
		f.Add(spec, "b/one,three,a/b/c")
	}
	all := model.Probes()
	other := model.NewPolicy("b/other", "a/one", `{ingress: [{from: [{podSelector: {}}]}]}`)
	f.Fuzz(func(t *testing.T, spec, networks string) {
		policy := model.NewPolicy("a/fuzz", networks, "{}")
		if err := json.Unmarshal([]byte(spec), &policy.Spec); err != nil {
			return // the API server would not store it
		}
		objects := append(fuzzCluster(), other, policy)
		c := New(testOptions())
		play(c, objects)
		comparePackets(t, c, model.NewOracle(objects, testOptions().NetworkPlugins...), all)
		for _, name := range []string{"a/pod-0", "a/pod-1"} {
			checkClosed(t, c, name)
		}
		remove(c, policy)
		comparePackets(t, c, model.NewOracle(objects[:len(objects)-1], testOptions().NetworkPlugins...), all[:40])
	})
}

// checkClosed: what a base chain sends to a chain of an interface comes to a drop at its end.
func checkClosed(t *testing.T, c *Cache, pod string) {
	t.Helper()
	rs := ruleset(c, pod)
	tb := model.NewTable(t, rs)
	for _, base := range rs.Chains {
		if base.Hook == engine.HookNone {
			continue
		}
		for _, r := range base.Rules {
			_, name, isGoto := strings.Cut(r.Text(), " goto ")
			chain := tb.Chains[name]
			if !isGoto || chain == nil || len(chain.Rules) == 0 || chain.Rules[len(chain.Rules)-1].Text() != "counter drop" {
				t.Errorf("%s: %q leads to no drop:\n%s", pod, r.Text(), render(t, rs))
			}
		}
	}
}
