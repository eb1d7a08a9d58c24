package explain

import (
	"fmt"
	"strings"
	"testing"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// testOptions are those of the commands: pods of all nodes are local.
func testOptions() cache.Options {
	return cache.Options{
		NetworkPlugins: []string{"macvlan", "bridge", "ipvlan"}, EnforcedBy: map[string]string{"ovn-k8s-cni-overlay": "OVN-Kubernetes"},
	}
}

func upsert(c *cache.Cache, o metav1.Object) {
	switch o := o.(type) {
	case *corev1.Pod:
		c.UpsertPod(cache.NewPod(o, c.Settings().Node, c.Limits()))
	case *corev1.Namespace:
		c.UpsertNamespace(cache.Namespace{Name: o.Name, Labels: labelindex.NewSet(o.Labels)})
	case *netv1.NetworkAttachmentDefinition:
		c.UpsertNAD(cache.NewNAD(cache.Key{Namespace: o.Namespace, Name: o.Name}, o.Spec.Config))
	case *mnpv1.MultiNetworkPolicy:
		c.UpsertPolicy(policy.Compile(policy.ObjectOf(o), c.Limits()))
	default:
		panic(fmt.Sprintf("%T", o))
	}
}

func play(c *cache.Cache, objects []metav1.Object) {
	for _, o := range objects {
		upsert(c, o)
	}
}

func newCluster(_ testing.TB, objects ...metav1.Object) *cache.Cache {
	c := cache.New(testOptions())
	play(c, objects)
	return c
}

func render(t testing.TB, rs engine.Ruleset) string {
	t.Helper()
	var b strings.Builder
	if err := engine.Render(&b, engine.Inet, rs); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func settle(c *cache.Cache) {
	for _, id := range c.TakeDirty() {
		c.Plan(id)
	}
}

// rulesetOf is the table of a pod, empty when it has none.
func rulesetOf(c *cache.Cache, key cache.Key) engine.Ruleset {
	id, ok := c.LocalPod(key)
	if !ok {
		return engine.Ruleset{}
	}
	t, _ := c.Plan(id)
	return t.Tables[engine.Inet]
}
