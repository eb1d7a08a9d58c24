package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// report is all that one run measured.
type report struct {
	Machine machine `json:"machine"`
	Rows    []row   `json:"rows"`
}

// machine is where it was measured. On a shared one the ratios say more than the times.
type machine struct {
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	Cores      int    `json:"cores"`
	LoadBefore string `json:"load_before"`
	LoadAfter  string `json:"load_after"`
}

func thisMachine() machine {
	m := machine{Go: runtime.Version(), Cores: runtime.GOMAXPROCS(0), LoadBefore: load()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return m
}

// load is the load average of the last minute.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}

// wayNames are the columns.
var wayNames = []string{"floor", "engine", "agent", "knftables", "rewrite"}

func (r *report) print(w io.Writer) error {
	fmt.Fprintf(w, "Linux %s, %s, %d cores, load %s before and %s after\n\n",
		r.Machine.Kernel, r.Machine.Go, r.Machine.Cores, r.Machine.LoadBefore, r.Machine.LoadAfter)
	fmt.Fprint(w, "Latency: median / p99 (times the floor's median)\n\n")
	err := r.table(w, func(x row) string {
		if x.Way == "floor" {
			return fmt.Sprintf("%s / %s", short(x.Median), short(x.P99))
		}
		return fmt.Sprintf("%s / %s (%s)", short(x.Median), short(x.P99), ratio(x.Floor))
	})
	if err != nil {
		return err
	}
	fmt.Fprint(w, "\nCost: CPU time (times the floor's), bytes handed to the kernel or to nft, allocations in this process\n\n")
	return r.table(w, func(x row) string {
		if x.Way == "floor" {
			return fmt.Sprintf("%s, %s, %d", short(x.CPU), shortBytes(x.Bytes), x.Allocs)
		}
		return fmt.Sprintf("%s (%s), %s, %d", short(x.CPU), ratio(x.CPUFloor), shortBytes(x.Bytes), x.Allocs)
	})
}

// table prints one line an event and one column a way, with widths that make it readable as text and as Markdown.
func (r *report) table(w io.Writer, cell func(row) string) error {
	lines := [][]string{append([]string{"peers", "pods", "event"}, wayNames...)}
	index := map[string]int{}
	for _, x := range r.Rows {
		id := x.size.String() + x.Event
		if index[id] == 0 {
			index[id] = len(lines)
			line := make([]string, len(lines[0]))
			line[0], line[1], line[2] = fmt.Sprintf("%d %s", x.Peers, x.Layout), fmt.Sprint(x.Pods), x.Event
			lines = append(lines, line)
		}
		lines[index[id]][3+slices.Index(wayNames, x.Way)] = cell(x)
	}
	return printTable(w, lines)
}

func printTable(w io.Writer, lines [][]string) error {
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, text := range line {
			widths[i] = max(widths[i], len([]rune(text)))
		}
	}
	for n, line := range lines {
		for i, text := range line {
			fmt.Fprintf(w, "| %s%s ", text, strings.Repeat(" ", widths[i]-len([]rune(text))))
		}
		if _, err := fmt.Fprintln(w, "|"); err != nil {
			return err
		}
		if n > 0 {
			continue
		}
		for _, width := range widths {
			fmt.Fprintf(w, "| %s ", strings.Repeat("-", width))
		}
		fmt.Fprintln(w, "|")
	}
	return nil
}

// short has two or three significant digits.
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

func shortBytes(n uint64) string {
	switch {
	case n < 1e4:
		return fmt.Sprintf("%d B", n)
	case n < 1e7:
		return fmt.Sprintf("%.0f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.0f MB", float64(n)/1e6)
}

func ratio(x float64) string {
	if x < 10 {
		return fmt.Sprintf("%.2fx", x)
	}
	return fmt.Sprintf("%.0fx", x)
}
