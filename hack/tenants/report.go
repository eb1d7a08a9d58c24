package main

import (
	"fmt"
	"strings"
	"time"
)

// row is the result of an attack.
type row struct {
	attack      attack
	startTook   time.Duration
	undoTook    time.Duration
	phases      [phases]samples
	leaks, lost int
	ready       time.Duration // the agent, after its restart
	peak        int64         // memory of the agent
	kernel      int64         // the kernel's part of it, at most
	kills       int64         // by the kernel, for memory
	logBytes    int64
	events      int
	health      health
	goroutines  int // more than before
	descriptors int // more than before
	rounds      int64
	policy      []byte // the first policy of the attack; nil: the attack has none
	shipped     string // whether the shipped CRD admits the policy
	notes       []string
	faults      []string // beyond the bounds
	broken      []string
}

func (r *row) verdict() string {
	if len(r.broken) == 0 {
		return "ok"
	}
	return "BROKEN: " + strings.Join(r.broken, "; ")
}

func anyBroken(rows []*row) bool {
	for _, r := range rows {
		if len(r.broken) > 0 {
			return true
		}
	}
	return false
}

func round(d time.Duration) time.Duration {
	if d > 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}

// table is the report in Markdown.
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

func pair(list []time.Duration) string {
	if len(list) == 0 {
		return "-"
	}
	return ms(median(list)) + " / " + ms(slowest(list))
}

func ms(d time.Duration) string {
	return fmt.Sprintf("%.0f", float64(d)/float64(time.Millisecond))
}
