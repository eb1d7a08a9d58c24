package cache

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"
)

func testOptions() Options {
	return Options{Node: model.Node, NetworkPlugins: []string{"macvlan", "bridge"}}
}

// upsert gives the cache an object of any kind.
func upsert(c *Cache, o metav1.Object) []policy.Problem {
	switch o := o.(type) {
	case *corev1.Pod:
		return c.UpsertPod(NewPod(o, c.node, c.limits))
	case *corev1.Namespace:
		c.UpsertNamespace(Namespace{Name: o.Name, Labels: labelindex.NewSet(o.Labels)})
	case *netv1.NetworkAttachmentDefinition:
		nad := NewNAD(Key{Namespace: o.Namespace, Name: o.Name}, o.Spec.Config)
		c.UpsertNAD(nad)
		return nad.Problems
	case *mnpv1.MultiNetworkPolicy:
		p := compile(o)
		c.UpsertPolicy(p)
		return p.Problems
	default:
		panic(fmt.Sprintf("%T", o))
	}
	return nil
}

func compile(o *mnpv1.MultiNetworkPolicy) *policy.Policy {
	limits := policy.DefaultLimits()
	return policy.Compile(policy.ObjectOf(o), &limits)
}

// remove takes an object of any kind from the cache.
func remove(c *Cache, o metav1.Object) {
	key := Key{Namespace: o.GetNamespace(), Name: o.GetName()}
	switch o.(type) {
	case *corev1.Pod:
		c.DeletePod(key)
	case *corev1.Namespace:
		c.DeleteNamespace(key.Name)
	case *netv1.NetworkAttachmentDefinition:
		c.DeleteNAD(key)
	case *mnpv1.MultiNetworkPolicy:
		c.DeletePolicy(key)
	default:
		panic(fmt.Sprintf("%T", o))
	}
}

// newCluster returns a cache with the objects, which must be free of problems, and no dirty pods.
func newCluster(t testing.TB, objects ...metav1.Object) *Cache {
	t.Helper()
	c := New(testOptions())
	for _, o := range objects {
		if ps := upsert(c, o); len(ps) > 0 {
			t.Fatalf("%s/%s: %v", o.GetNamespace(), o.GetName(), ps)
		}
	}
	c.TakeDirty()
	return c
}

// targetOf plans a pod.
func targetOf(c *Cache, pod string) (Target, bool) {
	id, ok := c.LocalPod(model.KeyOf(pod))
	if !ok {
		return Target{}, false
	}
	return c.Plan(id)
}

func ruleset(c *Cache, pod string) engine.Ruleset {
	t, _ := targetOf(c, pod)
	return t.Tables[engine.Inet]
}

// render returns a ruleset as text, and checks that all chains and sets exist that its rules refer to.
func render(t testing.TB, rs engine.Ruleset) string {
	t.Helper()
	names := map[string]bool{"": true} // a rule without a jump
	for _, c := range rs.Chains {
		names[c.Name] = true
	}
	for _, s := range rs.Sets {
		names[s.Name] = true
	}
	for _, c := range rs.Chains {
		for _, r := range c.Rules {
			refers := expr.Summarize(r.Statements)
			for _, name := range append(refers.Sets, refers.Chain) {
				if !names[name] {
					t.Errorf("%s refers to %s, which does not exist", c.Name, name)
				}
			}
		}
	}
	var b strings.Builder
	if err := engine.Render(&b, engine.Inet, rs); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func renderPod(t testing.TB, c *Cache, pod string) string {
	t.Helper()
	return render(t, ruleset(c, pod))
}

// wantDirty checks which pods TakeDirty returns.
func wantDirty(t testing.TB, c *Cache, what string, keys ...string) {
	t.Helper()
	var got []string
	for _, id := range c.TakeDirty() {
		got = append(got, id.String())
	}
	for i, k := range keys {
		keys[i] = model.KeyOf(k).String()
	}
	if diff := cmp.Diff(keys, got); diff != "" {
		t.Errorf("dirty after %s (-want +got):\n%s", what, diff)
	}
}

// wantPackets checks a pod against lines of "pass ingress net1 10.0.0.1 tcp 80" or "drop …".
func wantPackets(t *testing.T, c *Cache, pod string, lines ...string) {
	t.Helper()
	rs := ruleset(c, pod)
	tb := model.NewTable(t, rs)
	for _, line := range lines {
		verdict, rest, _ := strings.Cut(line, " ")
		if got := tb.Passes(model.NewPacket(rest)); got != (verdict == "pass") {
			t.Errorf("%s: want %s; the table is\n%s", pod, line, render(t, rs))
			return
		}
	}
}

// comparePackets compares what the tables of all local pods do with what policies mean.
func comparePackets(t *testing.T, c *Cache, o *model.Oracle, probes []model.Packet) {
	t.Helper()
	for key, pod := range o.Pods {
		target, ok := targetOf(c, key.String())
		isTarget := pod.Spec.NodeName == model.Node && !pod.Spec.HostNetwork && pod.Status.Phase != corev1.PodSucceeded
		if ok != isTarget {
			t.Fatalf("%s: target: %v, want %v", key, ok, isTarget)
		}
		if !ok {
			continue
		}
		tb := model.NewTable(t, target.Tables[engine.Inet])
		for _, p := range probes {
			if got, want := tb.Passes(p), o.Passes(pod, p); got != want {
				t.Fatalf("%s: %+v passes: %v, want %v; the table is\n%s", key, p, got, want, render(t, target.Tables[engine.Inet]))
			}
		}
	}
}
