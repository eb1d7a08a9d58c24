package cache

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"
)

// VLAN devices on an isolated interface are isolated as well, but another interface of the pod whose name is like theirs is not.
func TestVLANDevices(t *testing.T) {
	c := newCluster(t, model.NewNAD("net-a", "macvlan"), model.NewNAD("net-b", "macvlan"),
		model.NewPod("web", "app=web", "net1 net-a 10.0.0.1", "net1.5 net-b 10.9.0.1", "a23456789012.45 net-a 10.0.0.3"),
		model.NewPolicy("p", "net-a", `{}`))
	var got strings.Builder
	if err := engine.Render(&got, engine.Inet, ruleset(c, "web")); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`iifname "a23456789012.45" goto ingress-a23456789012.45`, `iifname "net1" goto ingress-net1`, `iifname "net1.5" accept`,
		`iifname "net1.*" goto ingress-net1`,
	}
	_, chain, _ := strings.Cut(got.String(), "chain prerouting {\n")
	chain, _, _ = strings.Cut(chain, "\t}")
	_, chain, _ = strings.Cut(chain, "policy accept;\n")
	if chain != "\t\t"+strings.Join(want, "\n\t\t")+"\n" {
		t.Errorf("prerouting:\n%s", chain)
	}
}

// A reply of a server is matched by the port that the client dialed, and a reply to a client by its source port.
func TestReplies(t *testing.T) {
	o := testOptions()
	o.RevokeEstablished = true
	c := New(o)
	for _, object := range []metav1.Object{
		model.NewNAD("net-a", "macvlan"), model.NewPod("web", "app=web", "net1 net-a 10.0.0.1"),
		model.NewPolicy("p", "net-a", `{ingress: [{ports: [{port: 80}]}], egress: [{ports: [{port: 53}]}]}`),
	} {
		upsert(c, object)
	}
	text := renderPod(t, c, "web")
	for name, want := range map[string]string{
		"replies-ingress-net1": "meta l4proto tcp ct original proto-dst . meta l4proto @ports-",
		"replies-egress-net1":  "th sport . meta l4proto @ports-",
	} {
		_, chain, _ := strings.Cut(text, "chain "+name+" {")
		if chain, _, _ = strings.Cut(chain, "\t}"); !strings.Contains(chain, "\t"+want) {
			t.Errorf("%s has no %q:\n%s", name, want, text)
		}
	}
}
