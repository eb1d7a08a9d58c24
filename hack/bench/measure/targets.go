package main

import (
	"fmt"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/report"
)

// target is a bound on the ratio of two figures.
type target struct {
	text  string
	least bool // the bound is the least ratio, and not the largest
	bound float64
	// ratio returns the ratio of a row, given the row of another way for the same event. It returns false for a row that the
	// target is not about.
	ratio func(x row, of func(way string) (row, bool)) (float64, bool)
}

// targets are the targets for changes.
var targets = []target{
	{"a peer joins or leaves: the engine's time, times the floor", false, 1.3, func(x row, _ func(string) (row, bool)) (float64, bool) {
		return x.Floor, x.Way == "engine" && isPeer(x)
	}},
	{"first apply of 10,000 scattered peers or more: the engine's allocations for each peer", false, 0.1, func(x row, _ func(string) (row, bool)) (float64, bool) {
		return float64(x.Allocs) / float64(x.Peers*x.Pods), x.Way == "engine" && x.Event == firstApply.name && x.Layout == scattered && x.Peers >= 10_000
	}},
	{"a peer joins or leaves: the time of knftables, times the agent's", true, 100, func(x row, of func(string) (row, bool)) (float64, bool) {
		other, ok := of("knftables")
		return float64(other.Median) / float64(x.Median), ok && x.Way == "agent" && isPeer(x)
	}},
	{"a peer joins or leaves at 10,000 peers: the time of a rewrite, times the agent's", true, 500, func(x row, of func(string) (row, bool)) (float64, bool) {
		other, ok := of("rewrite")
		return float64(other.Median) / float64(x.Median), ok && x.Way == "agent" && isPeer(x) && x.Peers == 10_000
	}},
}

func isPeer(x row) bool { return x.Event == addPeer.name || x.Event == removePeer.name }

// targetTable returns a table with each target, its worst row, and the number of rows that miss it.
func targetTable(rows []row) string {
	lines := [][]string{{"target", "bound", "worst", "where", "missed"}}
	for _, t := range targets {
		worst, where, n, missed := 0.0, "", 0, 0
		for _, x := range rows {
			got, ok := t.ratio(x, func(way string) (row, bool) { return find(rows, x, way) })
			if !ok {
				continue
			}
			if n == 0 || (got < worst) == t.least {
				worst, where = got, fmt.Sprintf("%s, %s", x.size, x.Event)
			}
			n++
			if got != t.bound && (got < t.bound) == t.least {
				missed++
			}
		}
		bound := "at most " + report.Ratio(t.bound)
		if t.least {
			bound = "at least " + report.Ratio(t.bound)
		}
		if n > 0 {
			lines = append(lines, []string{t.text, bound, report.Ratio(worst), where, fmt.Sprintf("%d of %d", missed, n)})
		}
	}
	return report.Table(lines)
}

// find returns the row of another way for the same event at the same size.
func find(rows []row, x row, way string) (row, bool) {
	for _, y := range rows {
		if y.size == x.size && y.Event == x.Event && y.Way == way {
			return y, true
		}
	}
	return row{}, false
}
