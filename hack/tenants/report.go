package main

import (
	"fmt"
	"runtime"
	"strings"
	"time"
)

// row is the result of an attack.
type row struct {
	attack attack
	// startTook and undoTook are how long the attack took to start and to remove
	startTook time.Duration
	undoTook  time.Duration
	// phases has the measurements of each phase, by number
	phases [phases]samples
	// leaks and lost are numbers of packets over all phases
	leaks, lost int
	ready       time.Duration // the agent, after its restart
	peak        int64         // memory of the agent
	kernel      int64         // the kernel's part of it, at most
	kills       int64         // by the kernel, for memory
	// logBytes is the length of the agent's log, events the number of Events in all namespaces
	logBytes int64
	events   int
	// health is over all phases, the restart included
	health      health
	goroutines  int // more than before
	descriptors int // more than before
	// rounds is how often loops of the attack ran; 0: it has no loop
	rounds  int64
	policy  []byte // the first policy of the attack; nil: the attack has none
	shipped string // whether the shipped CRD admits the policy
	notes   []string
	faults  []string // beyond the bounds
	// broken has a text for each broken bound
	broken    []string
	onlyTimes bool          // the broken bounds are all times
	repeated  bool          // the next row is the same attack again
	took      time.Duration // with all measurements
}

// verdict is the last column. A repeated row does not count against the run.
func (r *row) verdict() string {
	switch {
	case len(r.broken) == 0:
		return "ok"
	case r.repeated:
		return "repeated: " + strings.Join(r.broken, "; ")
	}
	return "BROKEN: " + strings.Join(r.broken, "; ")
}

// brokenRows has a line for each attack that broke a bound for good; empty: the run passes.
func brokenRows(rows []*row) string {
	var b strings.Builder
	for _, r := range rows {
		if len(r.broken) > 0 && !r.repeated {
			fmt.Fprintf(&b, "%s: %s\n", r.attack.name, strings.Join(r.broken, "; "))
		}
	}
	return b.String()
}

// round keeps milliseconds of short durations and tenths of seconds of long durations.
func round(d time.Duration) time.Duration {
	if d > 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}

// table returns the report in Markdown.
// It is for the terminal and has more columns than the page.
func table(rows []*row) string {
	var b strings.Builder
	b.WriteString("Time from a change of the victim until packets show it, and time of the hook before a pod of the victim starts, in ms " +
		"(typical / slowest); memory in MiB.\n\n")
	header := []string{
		"attack", "change: before", "during", "restarted", "after", "agent's part", "hook: before", "during", "restarted", "after",
		"Event", "ready", "leaks", "lost", "memory", "of it kernel", "log, kB", "Events", "shipped CRD", "result",
	}
	b.WriteString("| " + strings.Join(header, " | ") + " |\n|" + strings.Repeat(" --- |", len(header)) + "\n")
	for _, r := range rows {
		cells := []string{r.attack.name}
		for _, s := range r.phases {
			cells = append(cells, pair(s.changes))
		}
		cells = append(cells, pair(r.phases[during].own))
		for _, s := range r.phases {
			cells = append(cells, pair(s.hooks))
		}
		cells = append(cells, ms(slowest(r.phases[during].events)), ms(r.ready), fmt.Sprint(r.leaks), fmt.Sprint(r.lost),
			fmt.Sprint(r.peak>>20), fmt.Sprint(r.kernel>>20), fmt.Sprint(r.logBytes>>10), fmt.Sprint(r.events), r.shipped, r.verdict())
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	b.WriteString("\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "- `%s`: %s.", r.attack.name, r.attack.does)
		if r.rounds > 0 {
			fmt.Fprintf(&b, " %d rounds.", r.rounds)
		}
		for _, n := range r.notes {
			fmt.Fprintf(&b, " (%s)", n)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// page returns docs/tenants.md, with a row for each attack.
// Rows that were repeated are left out: the second run of the attack counts.
func page(rows []*row) string {
	var b strings.Builder
	var took time.Duration
	attacks := 0
	for _, r := range rows {
		took += r.took
		if !r.repeated {
			attacks++
		}
	}
	fmt.Fprintf(&b, `# Attacks by a hostile tenant

This page is the output of `+"`make tenants TENANTS='-out docs/tenants.md'`"+`: %d attacks within %.0f minutes, on a machine with %d cores.
It shows that the [threat model](security.md#threat-model) holds. A real API server, a real agent with the memory limit of the
DaemonSet, and a tenant share the machine. The tenant may write every namespaced object in its own namespaces and is root in its
own pods. The victim is another namespace. Its packets are in flight during the whole attack.

Times are in ms, as median / slowest. The bounds are in `+"`hack/tenants/bounds.go`"+`; an attack that breaks only bounds on times
runs a second time.

- *Change*: time from the API server's answer to a change of the victim until packets show the change. The API server decodes and
  checks the objects of the attack, and shares the cores with the agent here.
- *Agent's part*: time from the watch event of the change until packets show the change.
- *Start*: time that the agent adds to the start of a pod of the victim.
- *Change after restart*: *change*, after a restart of the agent while the objects of the attack exist.
- *Ready*: time until an agent is ready that starts while the objects of the attack exist.
- *Leaks*, *lost*: forbidden packets of the victim that arrived, and allowed packets that did not arrive.
- *Memory*: highest memory of the agent in MiB, and the kernel's part of it. *Log*: size in kB.
- *CRD*: whether the CRD of this project admits the first policy of the attack. The attacks use the published CRD.

`, attacks, took.Minutes(), runtime.NumCPU())
	header := []string{"attack", "change", "agent's part", "start", "change after restart", "ready", "leaks", "lost", "memory", "log", "Events", "CRD", "result"}
	b.WriteString("| " + strings.Join(header, " | ") + " |\n| --- |" + strings.Repeat(" ---: |", len(header)-3) + " --- | --- |\n")
	for _, r := range rows {
		if r.repeated {
			continue
		}
		d := r.phases[during]
		cells := []string{
			"`" + r.attack.name + "`", pair(d.changes), pair(d.own), pair(d.hooks), pair(r.phases[restarted].changes), ms(r.ready),
			fmt.Sprint(r.leaks), fmt.Sprint(r.lost), fmt.Sprintf("%d (%d)", r.peak>>20, r.kernel>>20), fmt.Sprint(r.logBytes >> 10),
			fmt.Sprint(r.events), r.shipped, r.verdict(),
		}
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	b.WriteString("\n## The attacks\n\n")
	for _, r := range rows {
		if !r.repeated {
			fmt.Fprintf(&b, "- `%s`: %s.", r.attack.name, r.attack.does)
			for _, n := range r.notes {
				fmt.Fprintf(&b, " (%s)", n)
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// pair returns the median and the slowest of the samples in ms, or a dash.
func pair(list []time.Duration) string {
	if len(list) == 0 {
		return "-"
	}
	return ms(median(list)) + " / " + ms(slowest(list))
}

// ms returns a duration in whole milliseconds, without the unit.
func ms(d time.Duration) string {
	return fmt.Sprintf("%.0f", float64(d)/float64(time.Millisecond))
}
