package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/report"
)

// measurement is the outcome of one cluster.
type measurement struct {
	pods, perPod   int           // pods of the cluster, bytes for each remote pod
	start, churned state         // at the start, and after the churn
	took           time.Duration // of the churn
	sent           uint64        // bytes of the initial events, on the wire
}

// Targets for the clusters, up to 100,000 pods.
const (
	mostChurnTail = 50 * time.Millisecond
	mostStart     = 5 * time.Second
)

// measureClusters measures an agent in clusters of several sizes: memory, start and churn.
func measureClusters(o *options) (string, error) {
	// The measurement without remote pods is the base: the bytes per remote pod are the growth of the heap over it.
	empty := cluster{pods: o.local, namespaces: o.namespaces, policies: o.policies, local: o.local, spacing: 5}
	base, err := measureCluster(empty, o, 0)
	if err != nil {
		return "", err
	}
	lines := [][]string{{
		"pods", "received at the start", "heap", "largest heap", "bytes per remote pod", "enforced after the last object", "events/s",
		"cores", "latency median", "p99", "largest", "samples", "longest queue",
	}}
	var all []measurement
	for text := range strings.SplitSeq(o.sizes, ",") {
		c := empty
		if c.pods, err = strconv.Atoi(strings.TrimSpace(text)); err != nil {
			return "", err
		}
		m, err := measureCluster(c, o, int(o.churn.Seconds()*float64(o.rate)))
		if err != nil {
			return report.Table(lines), fmt.Errorf("%d pods: %w", c.pods, err)
		}
		// The heap may be smaller than the base, so the difference is signed.
		m.pods, m.perPod = c.pods, int(int64(m.start.Heap)-int64(base.start.Heap))/max(1, c.pods-c.local)
		all, lines = append(all, m), append(lines, m.line())
	}
	if o.chart != "" {
		err = os.WriteFile(o.chart, []byte(drawClusters(all)), 0o644)
	}
	if largest := all[len(all)-1]; o.most > 0 && largest.perPod > o.most {
		err = errors.Join(err, fmt.Errorf("a remote pod takes %d bytes, more than %d", largest.perPod, o.most))
	}
	return report.Table(lines), err
}

// measureCluster runs an agent in a cluster, at first without and then with changes.
func measureCluster(c cluster, o *options, changes int) (m measurement, err error) {
	p, err := start(&c, o.memory)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if m.start, err = p.ask(stateCommand, 0); err != nil || changes == 0 {
		return m, err
	}
	m.sent = p.server.sent.Load()
	begin := time.Now()
	if err := p.server.churn(o.rate, changes); err != nil {
		return m, err
	}
	m.took = time.Since(begin)
	m.churned, err = p.ask(stateCommand, changes)
	return m, err
}

// line is the line of the table.
func (m *measurement) line() []string {
	mib := func(n uint64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }
	list := m.churned.Latency
	median, p99, largest := "", "", ""
	if len(list) > 0 {
		median, largest = report.Duration(list.Percentile(50)), report.Duration(list.Percentile(100))
		p99 = report.Target(list.Tail(), list.Percentile(99), mostChurnTail)
	}
	return []string{
		report.Thousands(m.pods), mib(m.sent), mib(m.start.Heap), mib(m.start.Peak), fmt.Sprint(m.perPod),
		report.Target(report.Duration(m.start.Settled), m.start.Settled, mostStart), fmt.Sprintf("%.0f", float64(m.churned.Events)/m.took.Seconds()),
		fmt.Sprintf("%.2f", m.churned.CPU.Seconds()/m.took.Seconds()), median, p99, largest, fmt.Sprint(len(list)), fmt.Sprint(m.churned.Queue),
	}
}

// largestChart is the number of pods at the right end of the chart.
const largestChart = 1_000_000

// drawClusters returns an SVG: memory, start and traffic over the number of pods. Beyond the largest measured cluster, values are
// extrapolated in proportion to the pods, and marked as such.
func drawClusters(all []measurement) string {
	c := report.Chart{
		Title: "One agent in a cluster of 1,000 to 1,000,000 pods", Subtitle: "both axes logarithmic; hollow: extrapolated, not measured",
		X: report.Axis{Low: 1000, High: largestChart, Label: "pods in the cluster, 110 of them local", Unit: report.Number},
		Y: report.Axis{Low: 1, High: 10_000, Unit: report.Number},
		Lines: []report.Line{
			{Class: "blue", Label: "heap, MiB"}, {Class: "purple", Label: "largest heap, MiB"}, {Class: "orange", Label: "until enforced, ms"},
			{Class: "gray", Label: "received, MiB"},
		},
	}
	for i := range c.Lines {
		line := &c.Lines[i]
		for _, m := range all {
			value := []float64{
				float64(m.start.Heap) / (1 << 20), float64(m.start.Peak) / (1 << 20), float64(m.start.Settled.Milliseconds()), float64(m.sent) / (1 << 20),
			}[i]
			line.Points = append(line.Points, report.Point{X: float64(m.pods), Y: max(1, value)})
		}
		if last := line.Points[len(line.Points)-1]; last.X < largestChart {
			line.Points = append(line.Points, report.Point{X: largestChart, Y: last.Y * largestChart / last.X, Hollow: true})
		}
	}
	return c.SVG()
}
