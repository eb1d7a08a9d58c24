package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/report"
)

// results holds the results of a run.
// Parts that were not measured are nil. It is also the form of the JSON.
type results struct {
	Machine report.Machine `json:"machine"`
	Changes []row          `json:"changes,omitempty"`
	Events  []eventRow     `json:"events,omitempty"`
	Packets []packetRow    `json:"packets,omitempty"`
}

// sections returns a section for each table of the parts that were measured.
func (r *results) sections() []report.Section {
	list := []report.Section{{Name: "machine", Text: r.Machine.String() + "\n"}}
	if r.Changes != nil {
		list = append(list, report.Section{Name: "latency", Text: r.latencies()}, report.Section{Name: "cost", Text: r.costs()},
			report.Section{Name: "targets", Text: targetTable(r.Changes)})
	}
	if r.Events != nil {
		list = append(list, report.Section{Name: "events", Text: eventTable(r.Events)})
	}
	if r.Packets != nil {
		list = append(list, report.Section{Name: "packets", Text: packetTable(r.Packets)})
	}
	return list
}

// text returns the report for the terminal.
func (r *results) text() string {
	var b strings.Builder
	for _, s := range r.sections() {
		b.WriteString(s.Text + "\n")
	}
	return b.String()
}

// wayNames are the columns of the tables.
// A way that is not here has no column, and table panics for it.
var wayNames = []string{"floor", "engine", "agent", connName, "knftables", "rewrite"}

// latencies returns the table of median / p99 (as a multiple of the floor's median); number of samples.
// The ratio compares medians of the same run of the benchmark, so it depends less on the machine than the times do.
func (r *results) latencies() string {
	return r.table(func(x row) string {
		if x.Way == "floor" {
			return fmt.Sprintf("%s / %s; %d", report.Duration(x.Median), x.Tail, x.Samples)
		}
		return fmt.Sprintf("%s / %s (%s); %d", report.Duration(x.Median), x.Tail, report.Ratio(x.Floor), x.Samples)
	})
}

// costs returns the table of CPU time (as a multiple of the floor's), bytes sent to the kernel or to nft, and allocations in this
// process. The bytes of google/nftables are unknown.
func (r *results) costs() string {
	return r.table(func(x row) string {
		switch x.Way {
		case "floor":
			return fmt.Sprintf("%s, %s, %d", report.Duration(x.CPU), report.Bytes(x.Bytes), x.Allocs)
		case connName:
			return fmt.Sprintf("%s (%s), %d", report.Duration(x.CPU), report.Ratio(x.CPUFloor), x.Allocs)
		}
		return fmt.Sprintf("%s (%s), %s, %d", report.Duration(x.CPU), report.Ratio(x.CPUFloor), report.Bytes(x.Bytes), x.Allocs)
	})
}

// table returns a table with a line for each event and a column for each way, readable as text and as Markdown.
func (r *results) table(cell func(row) string) string {
	lines := [][]string{append([]string{"peers", "pods", "event"}, wayNames...)}
	index := map[string]int{}
	// The rows of a size and an event are a line. A way that was left out leaves its cell empty.
	for _, x := range r.Changes {
		id := x.String() + x.Event
		// Line 0 is the header, so 0 says that the line is not there yet.
		if index[id] == 0 {
			index[id] = len(lines)
			line := make([]string, len(lines[0]))
			line[0], line[1], line[2] = fmt.Sprintf("%d %s", x.Peers, x.Layout), fmt.Sprint(x.Pods), x.Event
			lines = append(lines, line)
		}
		lines[index[id]][3+slices.Index(wayNames, x.Way)] = cell(x)
	}
	return report.Table(lines)
}
