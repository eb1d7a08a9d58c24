package cache

import (
	"slices"
	"strings"
	"sync"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// A group with many ranges is split: a hash set has the addresses of its pods, and the interval set only its ipBlocks. For a
// change of one address, the kernel walks all ranges of an interval set, but no other address of a hash set. A small group is
// cheaper with one set, since a second set needs a second rule.

// splitBounds decide which groups are split. The distance between the bounds keeps a group that grows and shrinks a little from
// changing rules all the time.
type splitBounds struct {
	above int // a group is split when its interval set would have more ranges
	below int // and no longer when the interval set would have fewer
}

var defaultSplit = splitBounds{above: 512, below: 128}

// A hash set holds each address, and an interval set the ranges. So a group whose pods have long rows of addresses is not
// split: its hash set would take far more memory than its ranges.
const (
	splitDensity = 4 // addresses for each range, at most
	mergeDensity = 8
)

// isSplit reports whether a group with this number of ranges in a set, and of addresses of pods, is split.
func (b splitBounds) isSplit(wasSplit bool, ranges, hosts int) bool {
	if wasSplit {
		return ranges >= b.below && hosts <= ranges*mergeDensity
	}
	return ranges > b.above && hosts > 0 && hosts <= ranges*splitDensity
}

// groupSets are the sets of a group in a family.
type groupSets struct {
	set       *engine.Set
	pods      *engine.Set // nil unless the group is split
	isCurrent bool
}

// families is a set of families: bit i is the family with index i.
type families uint8

// splits are the split groups of a table, by their digests, with the families in which they are split.
type splits map[policy.Digest]families

func (s splits) has(g *policy.Group, f sets.Family) bool {
	return s[g.Digest]&(1<<slices.Index(sets.Families[:], f)) != 0
}

// splitChain is the version of a policyChain in which some groups are split.
type splitChain struct {
	sync.Mutex
	key   string // the families of each group
	built *policy.Chain
}

// chain returns the chain for the groups that are split. Pods whose groups are split alike share it.
func (pc *policyChain) chain(split splits) *policy.Chain {
	if len(split) == 0 {
		return pc.built
	}
	key := make([]byte, len(pc.groups))
	for i, g := range pc.groups {
		key[i] = byte(split[g.spec.Digest])
	}
	if pc.collides || !slices.ContainsFunc(key, func(f byte) bool { return f != 0 }) {
		return pc.built
	}
	pc.split.Lock()
	defer pc.split.Unlock()
	if pc.split.key != string(key) {
		pc.split.key, pc.split.built = string(key), pc.build(split.has)
	}
	return pc.split.built
}

// withSplit returns the chains of a table of the plan, given the groups that are split.
func (p *plan) withSplit(chains []*engine.Chain, split splits) []*engine.Chain {
	if len(split) == 0 {
		return chains
	}
	chains = slices.Clone(chains)
	replace := func(c *engine.Chain) {
		if c == nil {
			return
		}
		i, found := slices.BinarySearchFunc(chains, c.Name, func(c *engine.Chain, name string) int { return strings.Compare(c.Name, name) })
		if found {
			chains[i] = c
		}
	}
	for _, pc := range p.policyChains {
		if built := pc.chain(split); built != pc.built {
			replace(built.Chain)
			replace(built.Replies)
		}
	}
	return chains
}
