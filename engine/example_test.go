package engine_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"os"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// isolated returns the table of a pod that only these peers reach.
func isolated(peers sets.Addrs) engine.Ruleset {
	rule := func(s ...expr.Statement) engine.Rule { return engine.Rule{Statements: s} }
	return engine.NewRuleset(
		[]*engine.Set{{Name: "peers", Elements: engine.Addrs{Family: sets.V4, Addrs: peers}}},
		[]*engine.Chain{
			{Name: "prerouting", Hook: engine.HookPrerouting, Rules: []engine.Rule{rule(expr.IIFName("net1"), expr.Goto("ingress"))}},
			{Name: "ingress", Rules: []engine.Rule{rule(expr.SourceIn(sets.V4, "peers"), expr.Accept()), rule(expr.Drop())}},
		})
}

// address returns a set with one address.
func address(a string) sets.Addrs { return sets.NewAddrs(sets.Single(netip.MustParseAddr(a))) }

// Render prints a ruleset as nft does.
func ExampleRender() {
	if err := engine.Render(os.Stdout, expr.Inet, isolated(address("10.0.0.1"))); err != nil {
		log.Fatal(err)
	}
	// Output:
	// table inet multi_networkpolicy {
	// 	set peers {
	// 		type ipv4_addr
	// 		flags interval
	// 		elements = { 10.0.0.1 }
	// 	}
	//
	// 	chain ingress {
	// 		ip saddr @peers accept
	// 		drop
	// 	}
	//
	// 	chain prerouting {
	// 		type filter hook prerouting priority dstnat - 10; policy accept;
	// 		iifname "net1" goto ingress
	// 	}
	// }
}

// An Engine sends only the difference to the table that the kernel has.
func ExampleOpen() {
	pod, end := newPod()
	defer end()
	e, err := engine.Open("shop/web", pod.NetNS(), engine.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	one := address("10.0.0.1")
	two := one.Insert(sets.Single(netip.MustParseAddr("10.0.0.9")))
	for _, want := range []engine.Ruleset{isolated(one), isolated(two), isolated(two)} {
		before := e.Stats().Messages
		if err := e.Apply(context.Background(), want); err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Stats().Messages-before, "messages")
	}
	// Output:
	// 14 messages
	// 3 messages
	// 0 messages
}

// A Namespace owns the tables of both families in a pod. Check compares them with the kernel's tables.
func ExampleOpenNamespace() {
	pod, end := newPod()
	defer end()
	n, err := engine.OpenNamespace("shop/web", pod.NetNS(), engine.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()
	if err := n.Apply(context.Background(), engine.Tables{engine.Inet: isolated(address("10.0.0.1"))}); err != nil {
		log.Fatal(err)
	}
	found, err := n.Check(context.Background())
	fmt.Println(found == engine.AsApplied, err)
	// Output: true <nil>
}

// newPod makes a network namespace. end removes it.
func newPod() (pod *lab.Host, end func()) {
	network, err := lab.New()
	if err != nil {
		log.Fatal(err)
	}
	if pod, err = network.Host("pod", netip.MustParsePrefix("10.0.0.2/24")); err != nil {
		log.Fatal(err)
	}
	return pod, func() {
		if err := network.Close(); err != nil {
			log.Fatal(err)
		}
	}
}

// A group of many pods has a hash set besides the interval set. Its elements are the addresses of one family.
func ExampleNewHosts() {
	hosts := engine.NewHosts(sets.V4, sets.NewAddrs(
		sets.PrefixRange(netip.MustParsePrefix("10.0.0.0/30")), sets.Single(netip.MustParseAddr("fd00::1")),
	))
	fmt.Println(hosts.Count)
	// Output: 4
}

// Probe asks the kernel for its optional features, in a network namespace of its own.
func ExampleProbe() {
	features, err := engine.Probe()
	if err != nil {
		log.Fatal(err)
	}
	options := engine.Options{Own: features.Owner}
	fmt.Println(options.Own == features.Owner)
	// Output: true
}

// Try tells whether the kernel accepts a ruleset. It changes no table of a pod.
func ExampleTry() {
	fmt.Println(engine.Try(expr.Inet, isolated(address("10.0.0.1"))))
	// Output: <nil>
}
