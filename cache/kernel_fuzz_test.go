package cache

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// FuzzKernel: whatever a policy and the network status of a pod say, the kernel takes what the cache makes of it, after
// whatever it had before, and what it reads back is that again.
func FuzzKernel(f *testing.F) {
	for _, spec := range []string{
		`{}`, `{"ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80, "endPort": 90}, {"port": "http"}]}], "egress": [{}]}`,
		`{"ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}, {"ipBlock": {"cidr": "::/0"}}]}]}`,
		`{"egress": [{"to": [{"podSelector": {}}], "ports": [{"port": "http"}, {"protocol": "SCTP"}]}, {"ports": [{"protocol": "UDP"}]}]}`,
	} {
		f.Add(spec, "net, other/net", `[{"name": "default/net", "interface": "net1", "ips": ["10.0.0.1", "fd00::1"]}]`)
		f.Add(spec, "net", `[{"name": "net", "interface": "a\"*\\b{", "ips": ["255.255.255.255", "ffff::"]}, {"name": "net", "interface": "net1"}]`)
	}
	host, err := lab.ForTest(f).Host("pod")
	if err != nil {
		f.Fatal(err)
	}
	table := openFuzzed(f, host)
	f.Cleanup(func() { table.Close() })
	f.Fuzz(func(t *testing.T, spec, networks, status string) {
		policy := model.NewPolicy("fuzz", networks, "{}")
		if err := json.Unmarshal([]byte(spec), &policy.Spec); err != nil {
			return // the API server would not store it
		}
		pod := model.WithPorts(model.NewPod("pod", "app=x"), "http=80/TCP")
		pod.Annotations = map[string]string{StatusAnnotation: status}
		o := testOptions()
		if len(spec)%2 == 0 {
			o.split = splitBounds{below: 1} // all groups with pods
		}
		c := New(o)
		play(c, []metav1.Object{model.NewNAD("net", "macvlan"), pod, model.NewPeer("peer", "", "net1 net 10.0.0.9 fd00::9"), policy})
		want := ruleset(c, "pod")
		if err := table.Apply(context.Background(), want); err != nil {
			t.Fatal(err)
		}
		again := openFuzzed(t, host)
		defer again.Close()
		if err := again.Apply(context.Background(), want); err != nil || again.Stats().Batches > 0 {
			t.Errorf("read back: %v, %+v", err, again.Stats())
		}
	})
}

func openFuzzed(t testing.TB, h *lab.Host) *engine.Engine {
	t.Helper()
	e, err := engine.Open("default/pod", h.NetNS(), engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}
