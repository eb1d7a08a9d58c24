package sets_test

import (
	"fmt"
	"net/netip"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// An ipBlock is its CIDR without its own excepts; a rule's peers are the union
// of its blocks and its pods.
func ExampleAddrs() {
	block := sets.NewAddrs(sets.PrefixRange(netip.MustParsePrefix("10.0.0.0/24"))).
		Remove(sets.PrefixRange(netip.MustParsePrefix("10.0.0.64/26")))
	peers := block.Insert(sets.Single(netip.MustParseAddr("10.0.0.64")))
	for r := range peers.Ranges(sets.V4) {
		fmt.Println(r)
	}
	// Output:
	// 10.0.0.0-10.0.0.64
	// 10.0.0.128/25
}

// A pod with an address next to an existing address extends the range: the old
// range is deleted, and the longer range is added.
func ExampleDiffAddrs() {
	have := sets.NewAddrs(sets.Single(netip.MustParseAddr("10.0.0.1")))
	want := have.Insert(sets.Single(netip.MustParseAddr("10.0.0.2")))
	d := sets.DiffAddrs(have, want, sets.V4)
	fmt.Println(d.Del, d.Add)
	// Output: [10.0.0.1] [10.0.0.1-10.0.0.2]
}

// Ranges of one protocol that touch become one range.
func ExampleNewPorts() {
	ports := sets.NewPorts(
		sets.PortRange{Proto: 6, From: 80, To: 80}, sets.PortRange{Proto: 6, From: 81, To: 90}, sets.PortRange{Proto: 17, From: 53, To: 53},
	)
	for r := range ports.Ranges() {
		fmt.Println(r)
	}
	fmt.Println(ports.Contains(6, 85), ports.Contains(17, 85))
	// Output:
	// 80-90/tcp
	// 53/udp
	// true false
}

// A named port of a policy can be another number in each pod, so an endpoint is an address with its own port.
func ExampleNewEndpoints() {
	web := sets.Endpoint{Addr: netip.MustParseAddr("10.0.0.1"), Proto: 6, Port: 8080}
	have := sets.NewEndpoints(web)
	want := have.Insert(sets.Endpoint{Addr: netip.MustParseAddr("10.0.0.2"), Proto: 6, Port: 80})
	d := sets.DiffEndpoints(have, want, sets.V4)
	fmt.Println(have.Len(sets.V4), want.Contains(web), d.Del, d.Add)
	// Output: 1 true [] [{10.0.0.2 6 80}]
}

// Numbers holds the numbers of a custom rule, such as message types of ICMP.
func ExampleNewNumbers() {
	types := sets.NewNumbers(sets.NumberRange{From: 8, To: 8}, sets.NumberRange{From: 0, To: 3}, sets.NumberRange{From: 4, To: 4})
	for r := range types.Ranges() {
		fmt.Println(r)
	}
	// Output:
	// {0 4}
	// {8 8}
}
