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
