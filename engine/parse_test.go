package engine

import (
	"net/netip"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// parseAddrs reads addresses and prefixes.
func parseAddrs(list ...string) sets.Addrs {
	var a sets.Addrs
	for _, s := range list {
		if strings.Contains(s, "/") {
			a = a.Insert(sets.PrefixRange(netip.MustParsePrefix(s)))
		} else {
			a = a.Insert(sets.Single(netip.MustParseAddr(s)))
		}
	}
	return a
}
