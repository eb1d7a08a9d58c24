package cache

import (
	"slices"
	"strings"
	"sync"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// A group with many ranges is split: a hash set has the addresses of its pods, and the interval set only its ipBlocks.
// For a change of an address, the kernel walks all ranges of an interval set, and no other element of a hash set. A
// small group is cheaper with one set, since a second set needs a second rule. docs/nftables.md ("Large groups") has
// the reasons and the measurements.

// splitBounds decide which groups are split. The distance between the bounds keeps a group that grows and shrinks a little from
// changing rules all the time.
type splitBounds struct {
	above int // a group is split if its interval set would have more ranges
	below int // a split group gets one set again if its interval set would have fewer ranges
}

// defaultSplit has the bounds of an agent; tests use smaller bounds.
var defaultSplit = splitBounds{above: 512, below: 128}

// A hash set holds each address, and an interval set the ranges. So a group whose pods have long rows of addresses is not
// split: its hash set would take far more memory than its ranges.
const (
	splitDensity = 4 // maximum addresses for each range of a group that becomes split
	mergeDensity = 8 // maximum addresses for each range of a group that stays split
)

// isSplit reports whether a group is split, given the number of ranges in a single set and of addresses of pods.
// wasSplit makes it depend on the state before, so that groups near a bound do not change all the time.
func (b splitBounds) isSplit(wasSplit bool, ranges, hosts int) bool {
	if wasSplit {
		return ranges >= b.below && hosts <= ranges*mergeDensity
	}
	return ranges > b.above && hosts > 0 && hosts <= ranges*splitDensity
}

// groupSets are the sets of a group in a family.
type groupSets struct {
	set       *engine.Set // the interval set: addresses of blocks and, unless the group is split, of pods
	pods      *engine.Set // the hash set: addresses of pods; nil unless the group is split
	isCurrent bool        // no member has changed since the sets were made
}

// families is a set of families: bit i is the family with index i.
// A family that is not in it has a single set.
type families uint8

// splits has the split groups of a table, by their digests, with the families in which they are split.
// nil: no group is split.
type splits map[policy.Digest]families

// has reports whether the group is split in the family.
// A group that is not in the map is not split.
func (s splits) has(g *policy.Group, f sets.Family) bool {
	return s[g.Digest]&(1<<slices.Index(sets.Families[:], f)) != 0
}

// splitChain is the version of a policyChain in which some groups are split. Only the last version is kept: most pods
// have the same.
type splitChain struct {
	sync.Mutex        // guards the fields below
	key        string // for each group the families in which it is split, a byte each
	built      *policy.Chain
}

// chain returns the chain for the groups that are split. Pods whose groups are split in the same way share it.
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

// withSplit returns the chains of a table of the plan, with the versions for the groups that are split. The list of the
// plan itself does not change.
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
