package engine

import (
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// The kernel publishes the changes of a batch in one interval set after the other. So a packet could miss an address that leaves
// one set and comes to another in the same batch: it looks up the first set after the change, and the second set before. Such a
// table changes by way of tables in which both sets hold the address.
//
// An address that moves to another group joins that group first:
//
//	in group A → in both groups → in group B
//
// A large peer group has two sets: an interval set with its ipBlocks, and a hash set with the addresses of its pods. The rule
// that looks up the hash set comes and goes with this set:
//
//	one set  → two sets, addresses in both → two sets
//	two sets → two sets, addresses in both → one set
//
// An address that comes or goes at the same time is in none of the tables between in both sets: they allow the same packets
// as the table before, or as the wanted table. An address that moves from another group to a group that gets its second set in the
// same change is no such address in the table between, so a packet from it may be lost.

// moves returns the rulesets between have and want, in the order in which they must be applied. It returns none unless
// addresses move between sets.
func moves(have, want Ruleset) (via []Ruleset) {
	if grown := joined(have, want); len(grown) > 0 {
		have = Ruleset{Sets: override(have.Sets, grown, setName), Chains: have.Chains}
		via = append(via, have)
	}
	if held := inBoth(have, want); len(held) > 0 {
		via = append(via, Ruleset{Sets: override(have.Sets, held, setName), Chains: have.Chains})
	}
	if held := inBoth(want, have); len(held) > 0 {
		via = append(via, Ruleset{Sets: override(want.Sets, held, setName), Chains: want.Chains})
	}
	return via
}

// joined returns versions of the sets in have that also hold the addresses that come to them from other sets. Only separable sets
// may hold these addresses early.
func joined(have, want Ruleset) (list []*Set) {
	// Most changes are of a single set. They need no memory here.
	changed := 0
	mergeByName(have.Sets, want.Sets, setName, func(before, s *Set) {
		if before != s && before != nil && s != nil {
			changed++
		}
	})
	if changed < 2 {
		return nil
	}
	type change struct {
		set    *Set // the version in have
		delta  *delta
		coming sets.Addrs
	}
	var changes []change
	mergeByName(have.Sets, want.Sets, setName, func(before, s *Set) {
		if before == s || before == nil || s == nil {
			return
		}
		if d, ok := s.since(before); ok && !d.isEmpty() {
			changes = append(changes, change{set: before, delta: d})
		}
	})
	var leaving sets.Addrs
	for i := range changes {
		del, add := changes[i].delta.addrs()
		leaving = leaving.Union(del.Difference(add))
		changes[i].coming = add.Difference(del)
	}
	var isSeparable map[string]bool
	for _, c := range changes {
		moved := c.coming.Difference(c.coming.Difference(leaving))
		if moved.IsEmpty() {
			continue
		}
		if isSeparable == nil {
			if isSeparable = separable(have, want); isSeparable == nil {
				return nil
			}
		}
		if isSeparable[c.set.Name] {
			list = append(list, c.set.plus(moved))
		}
	}
	return list
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
