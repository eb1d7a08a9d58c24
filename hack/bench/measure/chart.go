package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// series is a line of a chart.
type series struct {
	// way is the name of the way in the rows, and the CSS class of the line
	way, label string
	points     [][2]float64 // peers, seconds
}

// charted are the ways in the chart, with their labels.
var charted = []series{
	{way: "floor", label: "raw netlink floor"},
	{way: "agent", label: "this agent"},
	{way: "knftables", label: "nft, one element (knftables)"},
	{way: "rewrite", label: "nft, whole table"},
}

// The size of the picture and the frame of the lines, in units of the picture.
const (
	pictureWidth, pictureHeight = 760, 420
	left, right, top, bottom    = 70, 540, 60, 370
)

// axis is a logarithmic scale between two powers of ten.
type axis struct{ from, to, low, high float64 }

// at returns the coordinate of a value above 0 on the scale. y axes have from below to, as the coordinates of SVG
// grow downwards.
func (a axis) at(v float64) float64 {
	low, high := math.Log10(a.low), math.Log10(a.high)
	return a.from + (math.Log10(v)-low)/(high-low)*(a.to-a.from)
}

// drawLatency returns an SVG: the latency of an added peer over the number of peers, for a single pod.
// Only rows with scattered peers, a single local pod and a single policy count: a line must not mix sizes that differ
// in anything but the number of peers. A way without such a row has no line.
func drawLatency(rows []row) string {
	var lines []series
	for _, s := range charted {
		for _, r := range rows {
			if r.Way == s.way && r.Event == addPeer.name && r.Layout == scattered && r.Pods == 1 && r.Policies == 1 {
				s.points = append(s.points, [2]float64{float64(r.Peers), r.Median.Seconds()})
			}
		}
		slices.SortFunc(s.points, func(a, b [2]float64) int { return int(a[0] - b[0]) })
		if len(s.points) > 0 {
			lines = append(lines, s)
		}
	}
	x := axis{from: left, to: right, low: 100, high: 100_000}
	y := axis{from: bottom, to: top, low: 1e-6, high: 10}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="13" role="img">`+"\n",
		pictureWidth, pictureHeight)
	b.WriteString("<title>Time until one more peer is in force in one pod, over the number of peers</title>\n" + chartStyle)
	fmt.Fprintf(&b, `<rect class="paper" width="%d" height="%d"/>`+"\n", pictureWidth, pictureHeight)
	fmt.Fprintf(&b, `<text class="title" x="%d" y="28">One peer joins a group: time until it is in force in one pod</text>`+"\n", left)
	fmt.Fprintf(&b, `<text class="muted" x="%d" y="46">median; both axes logarithmic</text>`+"\n", left)
	drawGrid(&b, x, y)
	drawLines(&b, x, y, lines)
	b.WriteString("</svg>\n")
	return b.String()
}

// chartStyle follows the color scheme of the reader.
const chartStyle = `<style>
.paper { fill: #ffffff } text { fill: #1f2328 } .title { font-weight: 600; font-size: 15px } .muted { fill: #59636e }
.grid { stroke: #d1d9e0; stroke-width: 1 } polyline { fill: none; stroke-width: 2.5 }
.floor { stroke: #6e7781; fill: #6e7781; stroke-dasharray: 5 4 } .agent { stroke: #0969da; fill: #0969da }
.knftables { stroke: #bc4c00; fill: #bc4c00 } .rewrite { stroke: #8250df; fill: #8250df }
polyline.floor, polyline.agent, polyline.knftables, polyline.rewrite { fill: none } circle { stroke: none }
@media (prefers-color-scheme: dark) {
.paper { fill: #0d1117 } text { fill: #f0f6fc } .muted { fill: #9198a1 } .grid { stroke: #3d444d }
.floor { stroke: #9198a1; fill: #9198a1 } .agent { stroke: #4493f8; fill: #4493f8 }
.knftables { stroke: #f0883e; fill: #f0883e } .rewrite { stroke: #ab7df8; fill: #ab7df8 }
}
</style>
`

// drawGrid draws a label for each power of ten of the peers, and a line with a label for each power of ten of the
// latency, from 1 µs to 10 s.
func drawGrid(b *strings.Builder, x, y axis) {
	for v := x.low; v <= x.high; v *= 10 {
		fmt.Fprintf(b, `<text class="muted" x="%.0f" y="%d" text-anchor="middle">%s</text>`+"\n", x.at(v), bottom+20, thousands(int(v)))
	}
	fmt.Fprintf(b, `<text class="muted" x="%d" y="%d" text-anchor="middle">peers in the group, none a neighbor of another</text>`+"\n",
		(left+right)/2, bottom+40)
	for i := -6; i <= 1; i++ {
		v := math.Pow10(i)
		fmt.Fprintf(b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>`+"\n", left, right, y.at(v), y.at(v))
		fmt.Fprintf(b, `<text class="muted" x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			left-8, y.at(v)+4, time.Duration(math.Round(v*1e9)))
	}
}

// thousands formats a number of peers with a comma. Numbers above 1,000 must be multiples of 1,000.
func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d,000", n/1000)
}

// drawLines draws the lines. It writes the name and last value of each line behind its end, and keeps the names apart.
func drawLines(b *strings.Builder, x, y axis, lines []series) {
	slices.SortFunc(lines, func(a, b series) int {
		return int(y.at(a.points[len(a.points)-1][1]) - y.at(b.points[len(b.points)-1][1]))
	})
	// lineHeight is the least distance between two names. The lines are sorted from top to bottom, so a name moves
	// down only.
	const lineHeight = 18
	label := 0.0
	for _, s := range lines {
		var points []string
		for _, p := range s.points {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x.at(p[0]), y.at(p[1])))
		}
		fmt.Fprintf(b, `<polyline class="%s" points="%s"/>`+"\n", s.way, strings.Join(points, " "))
		for _, p := range s.points {
			fmt.Fprintf(b, `<circle class="%s" cx="%.1f" cy="%.1f" r="3.5"/>`+"\n", s.way, x.at(p[0]), y.at(p[1]))
		}
		last := s.points[len(s.points)-1]
		label = max(label+lineHeight, y.at(last[1])+4)
		fmt.Fprintf(b, `<text x="%d" y="%.1f">%s</text>`+"\n", right+12, label, s.label)
	}
}
