package reconciler

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// What the largest pod has.
const (
	largePolicies   = 200
	largeInterfaces = 16
	largePeers      = 100_000 // over all policies
	largePorts      = 5_000   // over all policies
)

// largePod is a pod that many policies isolate on many interfaces, with a crowd of peers.
type largePod struct {
	t     *testing.T
	cache *cache.Cache
	id    cache.PodID
	table *engine.Namespace
}

func (p *largePod) putPod(pod *corev1.Pod) {
	p.cache.UpsertPod(cache.NewPod(pod, "node", p.cache.Limits()))
}

func (p *largePod) policy(i int) *policy.Policy {
	return policy.Compile(policy.ObjectOf(largePolicy(i)), p.cache.Limits())
}

// TestLargePod: a very large pod is first filled in steps that each keep the kernel busy only for a moment, and what changes
// afterwards costs what it changes.
func TestLargePod(t *testing.T) {
	h, err := lab.ForTest(t).Bare("pod")
	if err != nil {
		t.Fatal(err)
	}
	p := newLargePod(t)
	p.table = openLargePod(t, h)
	before := p.table.Stats()
	p.apply()
	if s := p.table.Stats(); s.Batches-before.Batches < 4 || s.Batches-before.Batches > 40 {
		t.Errorf("first apply: %d batches", s.Batches-before.Batches)
	}

	more := largePeer(largePeers)
	p.change("a peer more", 1, 300, func() { p.putPod(more) })
	p.change("a peer less", 1, 300, func() { p.cache.DeletePod(cache.Key{Namespace: more.Namespace, Name: more.Name}) })
	// A chain, a jump on each interface, and sets with the ports of a policy.
	p.change("a policy more", 2, 32<<10, func() { p.cache.UpsertPolicy(p.policy(largePolicies)) })
	p.change("a policy less", 1, 8<<10, func() {
		p.cache.DeletePolicy(cache.Key{Namespace: "default", Name: fmt.Sprintf("policy-%d", largePolicies)})
	})

	p.table = openLargePod(t, h)
	p.change("a restart", 0, 0, func() {})
}

func openLargePod(t *testing.T, h *lab.Host) *engine.Namespace {
	t.Helper()
	e, err := engine.OpenNamespace("large", h.NetNS(), engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func (p *largePod) apply() {
	p.t.Helper()
	target, ok := p.cache.Plan(p.id)
	if !ok {
		p.t.Fatal("the pod is not known")
	}
	if err := p.table.Apply(p.t.Context(), target.Tables); err != nil {
		p.t.Fatal(err)
	}
}

// change makes a change and says how many batches and bytes it may take.
func (p *largePod) change(name string, batches, bytes uint64, do func()) {
	p.t.Helper()
	before := p.table.Stats()
	do()
	p.apply()
	after := p.table.Stats()
	if after.Batches-before.Batches != batches || after.Bytes-before.Bytes > bytes {
		p.t.Errorf("%s: %d batches of %d bytes, want %d of at most %d", name,
			after.Batches-before.Batches, after.Bytes-before.Bytes, batches, bytes)
	}
}

func newLargePod(t *testing.T) *largePod {
	c := cache.New(cache.Options{Node: "node", NetworkPlugins: []string{"macvlan"}})
	p := &largePod{t: t, cache: c, id: cache.PodID{Key: cache.Key{Namespace: "default", Name: "large"}, UID: "large"}}
	c.UpsertNamespace(cache.Namespace{Name: "default"})
	var status []string
	for i := range largeInterfaces {
		c.UpsertNAD(cache.NewNAD(cache.Key{Namespace: "default", Name: largeNetwork(i)}, `{"cniVersion": "0.3.1", "type": "macvlan"}`))
		status = append(status, fmt.Sprintf(`{"name": "default/%s", "interface": "net%d", "ips": ["192.168.%d.1"]}`, largeNetwork(i), i+1, i))
	}
	for i := range largePeers {
		p.putPod(largePeer(i))
	}
	for i := range largePolicies {
		compiled := p.policy(i)
		if compiled.Problems != nil {
			t.Fatal(compiled.Problems)
		}
		c.UpsertPolicy(compiled)
	}
	pod := newLargeTestPod("large", "large", "["+strings.Join(status, ",")+"]")
	pod.Spec.NodeName = "node"
	p.putPod(pod)
	return p
}

func largeNetwork(i int) string { return fmt.Sprintf("net-%d", i+1) }

// largePeer is on the first network, and no neighbor of another.
func largePeer(i int) *corev1.Pod {
	addr := netip.AddrFrom4([4]byte{10, byte(i >> 15), byte(i >> 7), byte(i << 1)})
	return newLargeTestPod(fmt.Sprintf("peer-%d", i), fmt.Sprintf("app-%d", i%largePolicies),
		fmt.Sprintf(`[{"name": "default/net-1", "interface": "net1", "ips": [%q]}]`, addr))
}

func newLargeTestPod(name, app, status string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, UID: types.UID(name), Labels: map[string]string{"app": app},
			Annotations: map[string]string{netv1.NetworkStatusAnnot: status},
		},
		Spec:   corev1.PodSpec{NodeName: "elsewhere"},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

// largePolicy lets one app's peers reach ports of its own, on all networks.
func largePolicy(i int) *mnpv1.MultiNetworkPolicy {
	var networks []string
	for n := range largeInterfaces {
		networks = append(networks, largeNetwork(n))
	}
	rule := mnpv1.MultiNetworkPolicyIngressRule{From: []mnpv1.MultiNetworkPolicyPeer{
		{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("app-%d", i%largePolicies)}}},
	}}
	for n := range largePorts / largePolicies {
		number := intstr.FromInt32(int32(1 + 2*(n*largePolicies+i)))
		rule.Ports = append(rule.Ports, mnpv1.MultiNetworkPolicyPort{Port: &number})
	}
	return &mnpv1.MultiNetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: fmt.Sprintf("policy-%d", i),
			Annotations: map[string]string{"k8s.v1.cni.cncf.io/policy-for": strings.Join(networks, ",")},
		},
		Spec: mnpv1.MultiNetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "large"}},
			Ingress:     []mnpv1.MultiNetworkPolicyIngressRule{rule},
		},
	}
}
