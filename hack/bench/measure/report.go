package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// report holds the results of a run.
// Parts that were not measured are nil. It is also the form of the JSON.
type report struct {
	Machine machine     `json:"machine"`
	Changes []row       `json:"changes,omitempty"`
	Events  []eventRow  `json:"events,omitempty"`
	Packets []packetRow `json:"packets,omitempty"`
}

// section is a part of the report in Markdown. A document has it between two markers with the name.
// The markers are comments of HTML, so that a reader of the page does not see them:
//
//	<!-- bench: latency -->
//	| peers | pods | …
//	<!-- end: latency -->
type section struct{ name, text string }

// sections returns a section for each table of the parts that were measured.
func (r *report) sections() []section {
	list := []section{{"machine", r.Machine.String() + "\n"}}
	if r.Changes != nil {
		list = append(list, section{"latency", r.latencies()}, section{"cost", r.costs()})
	}
	if r.Events != nil {
		list = append(list, section{"events", eventTable(r.Events)})
	}
	if r.Packets != nil {
		list = append(list, section{"packets", packetTable(r.Packets)})
	}
	return list
}

// text returns the report for the terminal.
func (r *report) text() string {
	var b strings.Builder
	for _, s := range r.sections() {
		b.WriteString(s.text + "\n")
	}
	return b.String()
}

// writeInto replaces the text between the markers of each section.
// Sections of parts that were not measured keep their text. A document without the markers of a section is an error
// and stays unchanged.
func (r *report) writeInto(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text := string(b)
	for _, s := range r.sections() {
		from, to := fmt.Sprintf("<!-- bench: %s -->\n", s.name), fmt.Sprintf("<!-- end: %s -->", s.name)
		before, rest, ok := strings.Cut(text, from)
		_, after, closed := strings.Cut(rest, to)
		if !ok || !closed {
			return fmt.Errorf("%s has no markers for %s", file, s.name)
		}
		text = before + from + s.text + to + after
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// machine describes the machine of the run. On a shared machine, ratios are more reliable than times.
type machine struct {
	Date   string `json:"date"`
	Kernel string `json:"kernel"`
	// Version of Go that built this program.
	Go string `json:"go"`
	// Threads that Go runs at the same time: fewer than the cores if the affinity or GOMAXPROCS says so.
	Cores int `json:"cores"`
	// Load averages of the last minute. High values say that other programs slowed the measurement.
	LoadBefore string `json:"load_before"`
	LoadAfter  string `json:"load_after"`
}

// thisMachine describes the machine at the start; the load after the run is added later.
func thisMachine() machine {
	m := machine{Date: time.Now().Format(time.DateOnly), Go: runtime.Version(), Cores: runtime.GOMAXPROCS(0), LoadBefore: load()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return m
}

// load returns the load average of the last minute.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}

func (m machine) String() string {
	return fmt.Sprintf("%s, Linux %s, %s, %d cores, load %s before and %s after.", m.Date, m.Kernel, m.Go, m.Cores, m.LoadBefore, m.LoadAfter)
}

// wayNames are the columns of the tables.
// A way that is not here has no column, and table panics for it.
var wayNames = []string{"floor", "engine", "agent", connName, "knftables", "rewrite"}

// latencies returns the table of median / p99 (as a multiple of the floor's median).
// The ratio compares medians of the same run of the benchmark, so it depends less on the machine than the times do.
func (r *report) latencies() string {
	return r.table(func(x row) string {
		if x.Way == "floor" {
			return fmt.Sprintf("%s / %s", short(x.Median), short(x.P99))
		}
		return fmt.Sprintf("%s / %s (%s)", short(x.Median), short(x.P99), ratio(x.Floor))
	})
}

// costs returns the table of CPU time (as a multiple of the floor's), bytes sent to the kernel or to nft, and allocations in this
// process. The bytes of google/nftables are unknown.
func (r *report) costs() string {
	return r.table(func(x row) string {
		switch x.Way {
		case "floor":
			return fmt.Sprintf("%s, %s, %d", short(x.CPU), shortBytes(x.Bytes), x.Allocs)
		case connName:
			return fmt.Sprintf("%s (%s), %d", short(x.CPU), ratio(x.CPUFloor), x.Allocs)
		}
		return fmt.Sprintf("%s (%s), %s, %d", short(x.CPU), ratio(x.CPUFloor), shortBytes(x.Bytes), x.Allocs)
	})
}

// table returns a table with a line for each event and a column for each way, readable as text and as Markdown.
func (r *report) table(cell func(row) string) string {
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
	return markdown(lines)
}

// markdown returns a table with aligned columns, so that it is readable as text too.
func markdown(lines [][]string) string {
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, text := range line {
			widths[i] = max(widths[i], len([]rune(text)))
		}
	}
	var b strings.Builder
	for n, line := range lines {
		for i, text := range line {
			b.WriteString("| " + text + strings.Repeat(" ", widths[i]-len([]rune(text))) + " ")
		}
		b.WriteString("|\n")
		if n > 0 {
			continue
		}
		for _, width := range widths {
			b.WriteString("| " + strings.Repeat("-", width) + " ")
		}
		b.WriteString("|\n")
	}
	return b.String()
}

// short formats a duration with two or three significant digits.
// Below 10 it keeps a decimal place: 9.1 µs, 91 µs, 910 µs, 9.1 ms.
func short(d time.Duration) string {
	us := float64(d.Nanoseconds()) / 1e3
	switch {
	case us < 10:
		return fmt.Sprintf("%.1f µs", us)
	case us < 1e3:
		return fmt.Sprintf("%.0f µs", us)
	case us < 1e4:
		return fmt.Sprintf("%.1f ms", us/1e3)
	case us < 1e6:
		return fmt.Sprintf("%.0f ms", us/1e3)
	}
	return fmt.Sprintf("%.1f s", us/1e6)
}

// shortBytes formats a number of bytes in units of 1,000.
func shortBytes(n uint64) string {
	switch {
	case n < 1e4:
		return fmt.Sprintf("%d B", n)
	case n < 1e7:
		return fmt.Sprintf("%.0f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.0f MB", float64(n)/1e6)
}

// ratio formats a factor: 1.17x, 91x.
func ratio(x float64) string {
	if x < 10 {
		return fmt.Sprintf("%.2fx", x)
	}
	return fmt.Sprintf("%.0fx", x)
}
