package main

import (
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/report"
)

// charted are the ways in the chart, with their labels and colors.
var charted = []struct{ way, label, class string }{
	{"floor", "raw netlink floor", "gray"},
	{"agent", "this agent", "blue"},
	{"knftables", "nft, one element (knftables)", "orange"},
	{"rewrite", "nft, whole table", "purple"},
}

// drawLatency returns an SVG: the latency of an added peer over the number of peers, for a single pod.
// Only rows with scattered peers, a single local pod and a single policy count: a line must not mix sizes that differ
// in anything but the number of peers. A way without such a row has no line.
func drawLatency(rows []row) string {
	c := report.Chart{
		Title: "One peer joins a group: time until it is in force in one pod", Subtitle: "median; both axes logarithmic",
		X: report.Axis{
			Low: 100, High: 100_000, Label: "peers in the group, none a neighbor of another",
			Unit: report.Number,
		},
		Y: report.Axis{Low: 1e-6, High: 10, Unit: report.Seconds},
	}
	for _, s := range charted {
		line := report.Line{Class: s.class, Label: s.label}
		for _, r := range rows {
			if r.Way == s.way && r.Event == addPeer.name && r.Layout == scattered && r.Pods == 1 && r.Policies == 1 {
				line.Points = append(line.Points, report.Point{X: float64(r.Peers), Y: r.Median.Seconds()})
			}
		}
		slices.SortFunc(line.Points, func(a, b report.Point) int { return int(a.X - b.X) })
		c.Lines = append(c.Lines, line)
	}
	return c.SVG()
}
