package cache

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

func enforceableCluster(t *testing.T, objects ...metav1.Object) *Cache {
	t.Helper()
	o := testOptions()
	o.NetworkPlugins = append(o.NetworkPlugins, "ipvlan", "bond", "userspace")
	o.UnenforceableRuntimes = DefaultUnenforceableRuntimes()
	c := New(o)
	for _, object := range objects {
		upsert(c, object)
	}
	settle(c)
	return c
}

func nadWith(name, config string) metav1.Object {
	nad := model.NewNAD(name, "")
	nad.Spec.Config = config
	return nad
}

// notEnforceable returns the network, the interface and the first word of the reason of each Shortfall.
func notEnforceable(t *testing.T, c *Cache) (texts []string) {
	t.Helper()
	for _, s := range c.Shortfalls() {
		for _, p := range s.Problems {
			if s.Reason == policy.NotEnforceable {
				var iface, network, why string
				if _, err := fmt.Sscanf(p.Message, "policies cannot be enforced on interface %s of network %s %s", &iface, &network, &why); err != nil {
					t.Fatalf("%s: %v", p.Message, err)
				}
				texts = append(texts, network+" "+iface+" "+why)
			}
		}
	}
	return texts
}

// TestNotEnforceable: a network or a pod whose packets the kernel hides from rules is reported, and isolated as far as possible.
func TestNotEnforceable(t *testing.T) {
	bond := func(rest string) string {
		return `{"type": "bond", "links": [{"name": "net1"}, {"name": "net9"}]` + rest + `}`
	}
	kata := func(name string) metav1.Object {
		return model.With(model.WebPod(), func(p *corev1.Pod) { p.Spec.RuntimeClassName = &name })
	}
	for _, tt := range []struct {
		name    string
		objects []metav1.Object // beside the pod with net1 on net-a and net2 on net-b, and a policy for both
		want    []string
	}{
		{"enforced", []metav1.Object{nadWith("net-a", `{"type": "ipvlan", "mode": "l3"}`)}, nil},
		{"the mode of another plugin", []metav1.Object{nadWith("net-a", `{"type": "macvlan", "mode": "l3s"}`)}, nil},
		{"ipvlan l3s, escaped", []metav1.Object{nadWith("net-a", `{"type": "ipvlan", "mode": "l\u0033s"}`)}, []string{"default/net-a: net1 ipvlan"}},
		{"a mode that is no text", []metav1.Object{nadWith("net-a", `{"type": "ipvlan", "mode": ["l3s"]}`)}, nil},
		{"ipvlan l3s", []metav1.Object{nadWith("net-a", `{"type": "ipvlan", "mode": "l3s"}`)}, []string{"default/net-a: net1 ipvlan"}},
		{
			"ipvlan l3s in a chain",
			[]metav1.Object{nadWith("net-a", `{"plugins": [{"type": "ipvlan", "mode": "l3s"}, {"type": "tuning"}]}`)},
			[]string{"default/net-a: net1 ipvlan"},
		},
		{"packets for a program", []metav1.Object{nadWith("net-b", `{"type": "userspace"}`)}, []string{"default/net-b: net2 the"}},
		{"a plugin that is not isolated", []metav1.Object{nadWith("net-b", `{"type": "vhostuser"}`)}, nil},
		{"a port of a bond", []metav1.Object{nadWith("net-b", bond(`, "linksInContainer": true`))}, []string{"default/net-a: net1 it"}},
		{"ports on the node", []metav1.Object{nadWith("net-b", bond(""))}, nil},
		{"links that are no list", []metav1.Object{nadWith("net-b", `{"type": "bond", "linksInContainer": true, "links": 7}`)}, nil},
		{"a bond of another pod", []metav1.Object{
			nadWith("net-c", bond(`, "linksInContainer": true`)), model.NewPod("other", "", "net1 net-c 10.0.0.9"),
		}, nil},
		{"Kata", []metav1.Object{kata("kata-qemu")}, []string{"default/net-a: net1 pods", "default/net-b: net2 pods"}},
		{"gVisor", []metav1.Object{kata("gvisor")}, []string{"default/net-a: net1 pods", "default/net-b: net2 pods"}},
		{"another RuntimeClass", []metav1.Object{kata("crun")}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := enforceableCluster(t, append([]metav1.Object{model.WebPod(), model.NewPolicy("p", "net-a, net-b", `{}`)}, tt.objects...)...)
			if diff := cmp.Diff(tt.want, notEnforceable(t, c)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got := c.Stats().NotEnforceable; got != int64(min(1, len(tt.want))) {
				t.Errorf("%d pods", got)
			}
			wantPackets(t, c, "web", "drop ingress net1 10.0.0.2 tcp 80")
		})
	}
}

// TestNotEnforceableChanges: the report follows the definitions and the pod.
func TestNotEnforceableChanges(t *testing.T) {
	c := enforceableCluster(t, model.WebPod(), model.NewPolicy("p", "net-a", `{}`))
	check := func(when string, want ...string) {
		t.Helper()
		settle(c)
		if diff := cmp.Diff(want, notEnforceable(t, c)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	check("at first")
	upsert(c, nadWith("net-a", `{"type": "ipvlan", "mode": "l3s"}`))
	check("with l3s", "default/net-a: net1 ipvlan")
	upsert(c, nadWith("net-a", `{"type": "ipvlan"}`))
	check("with l2")
	port := nadWith("net-b", `{"type": "bond", "linksInContainer": true, "links": [{"name": "net1"}]}`)
	upsert(c, port)
	check("with a bond", "default/net-a: net1 it")
	remove(c, port)
	check("without the bond")
	c.SetSandbox("uid-web", Sandbox{ID: "s", Handler: "kata"})
	check("with a handler", "default/net-a: net1 pods")
	c.DeleteSandbox("uid-web")
	check("without a sandbox")
	c.DeletePolicy(model.KeyOf("p"))
	upsert(c, nadWith("net-a", `{"type": "ipvlan", "mode": "l3s"}`))
	check("without a policy")
	if n := c.Stats().NotEnforceable; n != 0 {
		t.Errorf("%d pods", n)
	}
}

func TestCheckRuntimes(t *testing.T) {
	if err := CheckRuntimes(DefaultUnenforceableRuntimes()); err != nil {
		t.Error(err)
	}
	if err := CheckRuntimes([]string{"kata*", "[a"}); err == nil || !strings.Contains(err.Error(), `"[a"`) {
		t.Errorf("a malformed pattern: %v", err)
	}
}
