package cache_test

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// Objects go in, and dirty pods and their tables come out. The chain of a policy that allows nothing has no rule.
func ExampleNew() {
	c := cache.New(cache.Options{NetworkPlugins: []string{"macvlan"}, Limits: policy.DefaultLimits()})
	c.UpsertNAD(cache.NewNAD(cache.Key{Namespace: "shop", Name: "storage"}, `{"type": "macvlan"}`))
	c.UpsertPod(cache.NewPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "web", UID: "1", Annotations: map[string]string{
			"k8s.v1.cni.cncf.io/network-status": `[{"name": "shop/storage", "interface": "net1", "ips": ["10.9.0.1"]}]`,
		},
	}}, "", c.Limits()))
	networks := "storage"
	c.UpsertPolicy(policy.Compile(policy.Object{
		Key: policy.Key{Namespace: "shop", Name: "deny"}, Networks: &networks, Spec: []byte(`{"podSelector": {}, "policyTypes": ["Ingress"]}`),
	}, c.Limits()))

	for _, pod := range c.TakeDirty() {
		target, known := c.Plan(pod)
		fmt.Println(pod.Key, known)
		for _, chain := range target.Tables[expr.Inet].Chains {
			fmt.Println(chain.Name, len(chain.Rules))
		}
	}
	// Output:
	// shop/web true
	// common-ingress 3
	// ingress-net1 5
	// ingress-policy-28f6e8ad4bcc93e3 0
	// prerouting 2
	// self-ingress 2
}

// Trial returns tables with every kind of statement, to ask the kernel whether it has them all.
func ExampleTrial() {
	tables := cache.Trial(cache.Options{Limits: policy.DefaultLimits()})
	for _, f := range expr.TableFamilies {
		fmt.Println(f, !tables[f].IsEmpty())
	}
	// Output:
	// inet true
	// bridge true
}
