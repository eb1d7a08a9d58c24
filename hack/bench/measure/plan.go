package main

import "time"

// part is a size with its ways and its time.
type part struct {
	size
	// names of the ways that run nft; the other ways are always measured
	ways   map[string]bool
	limits limits
}

// The ways that run nft are left out if a run takes a minute.
var (
	allWays = map[string]bool{"knftables": true, "rewrite": true}
	raw     = map[string]bool{}
)

// oneGroup returns the size of a node whose pods share a single group of peers, with a single policy of two ports.
func oneGroup(l layout, peers, pods int) size {
	return size{Layout: l, Peers: peers, Pods: pods, Policies: 1, Interfaces: 1, Ports: 2}
}

// largePod is a pod with many policies and networks, in a large cluster.
var largePod = size{Layout: scattered, Peers: 100_000, Pods: 1, Policies: 200, Interfaces: 16, Ports: 5_000}

// plan returns the sizes to measure, in the order of the report. Budgets are short by default, so that a run takes a
// few minutes; with -full the medians have more samples behind them.
func plan(o options) []part {
	l := limits{budget: 300 * time.Millisecond, turn: 5 * time.Millisecond, most: 5000, nft: 10_000}
	if o.full {
		l.budget, l.most, l.nft = 2*time.Second, 5000, mostWithNFT
	}
	if o.budget > 0 {
		l.budget = o.budget
	}
	switch {
	case o.large:
		l.nft = mostWithNFT
		return []part{{largePod, allWays, l}}
	case o.smoke:
		// A budget of a nanosecond: each way runs each event once, besides the warm-up.
		l = limits{budget: 1, turn: 1, most: 1, nft: 10_000}
		return []part{{oneGroup(scattered, 20, 2), allWays, l}, {size{Layout: scattered, Peers: 40, Pods: 1, Policies: 4, Interfaces: 2, Ports: 8}, allWays, l}}
	case o.peers > 0:
		ways := allWays
		if o.raw {
			ways = raw
		}
		return []part{{oneGroup(scattered, o.peers, max(1, o.pods)), ways, l}, {oneGroup(contiguous, o.peers, max(1, o.pods)), ways, l}}
	case o.full:
		return fullPlan(l)
	}
	return []part{
		{oneGroup(scattered, 100, 1), allWays, l},
		{oneGroup(scattered, 1_000, 1), allWays, l},
		{oneGroup(scattered, 10_000, 1), allWays, l},
		{oneGroup(scattered, 100_000, 1), allWays, l},
		{oneGroup(contiguous, 10_000, 1), allWays, l},
		{oneGroup(scattered, 1_000, 20), allWays, l},
		{oneGroup(scattered, 1_000, 100), raw, l},
	}
}

// mostWithNFT is the largest number of peers, on all pods together, with which the ways that run nft are measured.
const mostWithNFT = 200_000

// fullPlan returns all combinations of layouts, pods and peers. nft is quick with contiguous peers at any number,
// since they are a single range.
func fullPlan(l limits) []part {
	var parts []part
	for _, layout := range []layout{scattered, contiguous} {
		for _, pods := range []int{1, 20, 100} {
			for _, peers := range []int{100, 1_000, 10_000, 100_000} {
				ways := allWays
				if layout == scattered && peers*pods > mostWithNFT {
					ways = raw
				}
				parts = append(parts, part{oneGroup(layout, peers, pods), ways, l})
			}
		}
	}
	return parts
}
