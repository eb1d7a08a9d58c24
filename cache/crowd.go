package cache

import (
	"iter"
	"maps"
	"slices"
)

// crowd is the pods of one namespace on one network.
type crowd struct {
	network   *network
	namespace *namespace
}

// crowdIndex finds the pods of a crowd by label. Groups come in numbers, with a pod that many policies select, and each
// would otherwise look at the whole crowd. It is made for the second group to ask, and is good until a pod changes: so it
// costs the events of pods nothing, and no memory for long.
type crowdIndex map[label][]*pod

// fewPods is how many are looked at one by one all the same.
var fewPods = 64

// candidates returns pods among which are all of the crowd that the selector matches.
func (c *Cache) candidates(of crowd, s *selector) iter.Seq[*pod] {
	pods := of.network.pods[of.namespace]
	if len(s.pairs) == 0 || len(pods) < fewPods {
		return maps.Keys(pods)
	}
	index, asked := c.crowds[of]
	switch {
	case !asked:
		c.crowds[of] = nil
		return maps.Keys(pods)
	case index == nil:
		index = crowdIndex{}
		for p := range pods {
			for _, l := range p.labels {
				index[l] = append(index[l], p)
			}
		}
		c.crowds[of] = index
	}
	return index.pods(slices.MinFunc(s.pairs, func(a, b []label) int { return index.count(a) - index.count(b) }))
}

func (x crowdIndex) count(labels []label) (n int) {
	for _, l := range labels {
		n += len(x[l])
	}
	return n
}

// pods returns those that have one of the labels, which are values of one key: each pod once.
func (x crowdIndex) pods(labels []label) iter.Seq[*pod] {
	return func(yield func(*pod) bool) {
		for _, l := range labels {
			for _, p := range x[l] {
				if !yield(p) {
					return
				}
			}
		}
	}
}
