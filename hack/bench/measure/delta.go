package main

import (
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// delta is the difference between two rulesets. It is computed naively, with maps, independently of the engine's plan. It covers
// only the changes that the events make: elements of address sets, whole sets and chains, and added or deleted rules in a chain.
type delta struct {
	// The kernel needs old objects deleted after the rules that use them, and new objects created before.
	newSets, oldSets     []*engine.Set
	elements             []elementDelta
	newChains, oldChains []*engine.Chain
	newRules, oldRules   []ruleDelta
}

// elementDelta is the change of a set that exists before and after: the ranges to delete and the ranges to add. If a
// peer fills the hole between two ranges, old has both ranges and more has the joined range.
type elementDelta struct {
	set       string
	old, more []sets.AddrRange
	isHash    bool // the ranges are single addresses in a hash set
}

// ruleDelta is an added or deleted rule, with the number of rules before it in the existing chain.
type ruleDelta struct {
	chain string
	after int
	rule  *engine.Rule
}

// newDelta returns the difference. Sets and chains with equal names count as the same object, whose content is
// compared.
func newDelta(from, to engine.Ruleset) *delta {
	d := &delta{}
	d.newSets, d.oldSets = missing(to.Sets, from.Sets, setName), missing(from.Sets, to.Sets, setName)
	for _, s := range to.Sets {
		i := slices.IndexFunc(from.Sets, func(f *engine.Set) bool { return f.Name == s.Name })
		// Equal pointers mean equal sets: rulesets share the sets that an event does not change.
		if i < 0 || from.Sets[i] == s {
			continue
		}
		have, want := rangesOf(from.Sets[i]), rangesOf(s)
		e := elementDelta{set: s.Name, isHash: isHash(s)}
		same := func(r sets.AddrRange) sets.AddrRange { return r }
		if e.old, e.more = missing(have, want, same), missing(want, have, same); len(e.old)+len(e.more) > 0 {
			d.elements = append(d.elements, e)
		}
	}
	d.newChains, d.oldChains = missing(to.Chains, from.Chains, chainName), missing(from.Chains, to.Chains, chainName)
	for _, c := range to.Chains {
		if i := slices.IndexFunc(from.Chains, func(f *engine.Chain) bool { return f.Name == c.Name }); i >= 0 {
			d.compareRules(from.Chains[i], c)
		}
	}
	return d
}

func setName(s *engine.Set) string     { return s.Name }
func chainName(c *engine.Chain) string { return c.Name }
func ruleText(r *engine.Rule) string   { return r.Text() + " # " + r.Comment }

func isHash(s *engine.Set) bool {
	_, ok := s.Elements.(engine.Hosts)
	return ok
}

// rangesOf returns the ranges of a set of addresses. The ranges of a hash set are single addresses.
func rangesOf(s *engine.Set) (ranges []sets.AddrRange) {
	switch e := s.Elements.(type) {
	case engine.Addrs:
		return slices.Collect(e.Addrs.Ranges(e.Family))
	case engine.Hosts:
		for a := range e.Addrs.Hosts(e.Family) {
			ranges = append(ranges, sets.Single(a))
		}
	}
	return ranges
}

// missing returns the items of in that are not in notIn.
func missing[T any, K comparable](in, notIn []T, key func(T) K) []T {
	there := make(map[K]bool, len(notIn))
	for _, t := range notIn {
		there[key(t)] = true
	}
	var list []T
	for _, t := range in {
		if !there[key(t)] {
			list = append(list, t)
		}
	}
	return list
}

// compareRules finds added rules if the chain grows, and deleted rules if it shrinks. An event never does both in a
// chain. A deleted rule is found by the kept rule behind it, so it must neither be last nor follow another deleted
// rule.
func (d *delta) compareRules(from, to *engine.Chain) {
	have := 0
	// have is the next rule of from that has no partner in to yet.
	for i := range to.Rules {
		w := &to.Rules[i]
		switch {
		case have < len(from.Rules) && ruleText(&from.Rules[have]) == ruleText(w):
			have++
		case len(to.Rules) > len(from.Rules):
			d.newRules = append(d.newRules, ruleDelta{chain: to.Name, after: have, rule: w})
		default:
			d.oldRules = append(d.oldRules, ruleDelta{chain: to.Name, after: have, rule: &from.Rules[have]})
			// past the deleted rule and the rule behind it, which is w
			have += 2
		}
	}
}

// hasRules reports whether the messages need handles of rules, which only the kernel knows.
func (d *delta) hasRules() bool { return len(d.newRules)+len(d.oldRules) > 0 }
