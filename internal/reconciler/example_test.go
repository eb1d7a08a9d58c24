package reconciler_test

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/reconciler"
)

// printed is a Table that prints the number of its chains in place of a kernel.
type printed struct {
	reconciler.Table
	pod string
}

func (p printed) Apply(_ context.Context, want engine.Tables) error {
	fmt.Println(p.pod, len(want[expr.Inet].Chains), "chains")
	return nil
}

func (p printed) HasBridgePort(...string) (bool, error) { return false, nil }
func (p printed) Changed(context.Context) (bool, error) { return false, nil }
func (p printed) IsExposed() bool                       { return false }
func (p printed) SeedFailure() error                    { return nil }
func (p printed) Close() error                          { return nil }

// A pod that starts gets its table before EnforceNow returns.
func ExampleNew() {
	limits := policy.DefaultLimits()
	c := cache.New(cache.Options{NetworkPlugins: []string{"macvlan"}, Limits: limits})
	c.UpsertNAD(cache.NewNAD(cache.Key{Namespace: "shop", Name: "storage"}, `{"type": "macvlan"}`))
	c.UpsertPod(cache.NewPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "web", UID: "1", Annotations: map[string]string{"k8s.v1.cni.cncf.io/networks": "storage"},
	}}, "", c.Limits()))
	c.SetSandbox("1", cache.Sandbox{ID: "s1", NetNS: "/proc/self/ns/net"})
	networks := "storage"
	c.UpsertPolicy(policy.Compile(policy.Object{
		Key: policy.Key{Namespace: "shop", Name: "deny"}, Networks: &networks, Spec: []byte(`{"podSelector": {}, "policyTypes": ["Ingress"]}`),
	}, c.Limits()))

	open := func(pod, _ string) (reconciler.Table, error) { return printed{pod: pod}, nil }
	r := reconciler.New(c, open, reconciler.BudgetOf(&limits), nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	web, _ := c.LocalPod(cache.Key{Namespace: "shop", Name: "web"})
	fmt.Println(r.EnforceNow(ctx, web))
	cancel()
	<-done
	// Output:
	// shop/web 5 chains
	// true <nil>
}
