package engine

import (
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// A large peer group has two sets: an interval set with its ipBlocks, and a hash set with the addresses of its pods. The rule
// that looks up the hash set comes and goes with this set. If the addresses left one set in the same batch, a packet that is
// on its way through the rules could miss them in both sets. So a table in which a group gets or loses its second set
// changes by way of tables in which the interval set holds these addresses, too:
//
//	one set  → two sets, addresses in both → two sets
//	two sets → two sets, addresses in both → one set
//
// An address that comes or goes at the same time is in none of the tables between in both sets: they allow the same packets
// as the table before, or as the wanted table.

// moves returns the rulesets between have and want, in the order in which they must be applied. It returns none unless
// addresses move between the two sets of a group.
func moves(have, want Ruleset) (via []Ruleset) {
	if held := inBoth(have, want); len(held) > 0 {
		via = append(via, Ruleset{Sets: override(have.Sets, held, setName), Chains: have.Chains})
	}
	if held := inBoth(want, have); len(held) > 0 {
		via = append(via, Ruleset{Sets: override(want.Sets, held, setName), Chains: want.Chains})
	}
	return via
}

// inBoth returns versions of the interval sets in rs that also hold addresses of the group's pods: the addresses that
// are in the hash set in rs, and in the interval set in the other ruleset.
func inBoth(rs, other Ruleset) (list []*Set) {
	for _, s := range rs.Sets {
		pods, ok := s.Elements.(Hosts)
		if !ok {
			continue
		}
		name := strings.TrimSuffix(s.Name, podsSuffix)
		set, before := rs.set(name), other.set(name)
		// Equal pointers mean an unchanged set, so no address can have moved.
		if set == before || set == nil || before == nil {
			continue
		}
		blocks, isInterval := set.Elements.(Addrs)
		all, wasInterval := before.Elements.(Addrs)
		if !isInterval || !wasInterval {
			continue
		}
		var held []sets.AddrRange
		for a := range pods.Addrs.Hosts(pods.Family) {
			// An address that a block holds is in the interval set anyway.
			if all.Addrs.Contains(a) && !blocks.Addrs.Contains(a) {
				held = append(held, sets.Single(a))
			}
		}
		if len(held) > 0 {
			blocks.Addrs = blocks.Addrs.Union(sets.NewAddrs(held...))
			list = append(list, set.like(blocks))
		}
	}
	return list
}
