package trace_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/trace"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// A client sends a datagram to a pod whose table drops all packets on net1, and the trace shows the rules on its path.
func Example() {
	network, err := lab.New()
	if err != nil {
		log.Fatal(err)
	}
	defer network.Close()
	pod, client := host(network, "pod", "10.9.0.1/24"), host(network, "client", "10.9.0.2/24")
	isolate(pod)

	tracer, err := trace.Open(pod.NetNS())
	if err != nil {
		log.Fatal(err)
	}
	defer tracer.Close()
	filter := trace.Filter{Interface: "net1", Port: 53, Rate: 100}
	if _, err := tracer.Start(filter, time.Now().Add(time.Minute)); err != nil {
		log.Fatal(err)
	}
	lab.Probe(context.Background(), client, netip.MustParseAddrPort("10.9.0.1:53"), lab.UDP, 100*time.Millisecond)

	p, err := tracer.Next(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %s to %s, port %d\n", p.In, p.Headers.Source, p.Headers.Destination, p.Headers.DestinationPort)
	for _, s := range p.Steps {
		fmt.Printf("chain %s: %s %s\n", s.Chain, s.Verdict, s.Target)
	}
	// Output:
	// net1: 10.9.0.2 to 10.9.0.1, port 53
	// chain prerouting: goto ingress-net1
	// chain ingress-net1: drop
}

// host adds a network namespace with an address on net1.
func host(network *lab.Lab, name, prefix string) *lab.Host {
	h, err := network.Host(name, netip.MustParsePrefix(prefix))
	if err != nil {
		log.Fatal(err)
	}
	return h
}

// isolate gives the pod a table that drops all IP packets on net1.
func isolate(pod *lab.Host) {
	e, err := engine.Open(pod.Name, pod.NetNS(), engine.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	rule := func(s ...expr.Statement) []engine.Rule { return []engine.Rule{{Statements: s}} }
	err = e.Apply(context.Background(), engine.NewRuleset(nil, []*engine.Chain{
		{Name: "prerouting", Hook: engine.HookPrerouting, Rules: rule(expr.IIFName("net1"), expr.Goto("ingress-net1"))},
		{Name: "ingress-net1", Rules: rule(expr.Counter(), expr.Drop())},
	}))
	if err != nil {
		log.Fatal(err)
	}
}
