package policy_test

import (
	"fmt"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// A policy with a mistake still isolates its pods. Only the invalid port allows nothing.
func ExampleCompile() {
	networks := "storage"
	limits := policy.DefaultLimits()
	p := policy.Compile(policy.Object{
		Key:      policy.Key{Namespace: "shop", Name: "web"},
		Networks: &networks,
		Spec: []byte(`{
			"podSelector": {"matchLabels": {"app": "web"}},
			"policyTypes": ["Ingress"],
			"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 80}, {"port": 80000}]}]
		}`),
	}, &limits)
	fmt.Println(p.Pods, p.Networks)
	fmt.Println(p.Problems)
	rule := p.Sections[engine.Ingress].Rules[0]
	for ports := range rule.Ports.Ranges() {
		fmt.Println(rule.Peers.Words(), "on", ports)
	}
	// Output:
	// app=web [shop/storage]
	// [spec.ingress[0].ports[1].port: 80000 is not a port from 1 to 65535, so it allows nothing]
	// 10.0.0.0/8 on 80/tcp
}

// The annotation policy-for names networks with or without their namespace.
func ExampleParseNetwork() {
	for _, name := range []string{"storage", "net/storage", "a/b/c"} {
		network, ok := policy.ParseNetwork(name, "shop")
		fmt.Printf("%s: %s %t\n", name, network, ok)
	}
	// Output:
	// storage: shop/storage true
	// net/storage: net/storage true
	// a/b/c: / false
}
