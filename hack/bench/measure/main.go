package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/report"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// options are the flags of the command.
type options struct {
	changes, large, events, datapath bool // parts to measure; none: all except the large pod
	// full: all sizes; raw: no ways that run nft; json: print JSON; smoke: as short as possible, to see whether all
	// parts work
	full, raw, json, smoke bool
	// Files to write; empty: none.
	chart, document, cpuProfile string
	// A size instead of all sizes, if peers is not 0.
	peers, pods int
	// Time of a way in a cycle of events, preparations included; 0: the default.
	budget time.Duration
	// Part of the name of the events to measure; empty: all events.
	only string
}

// The program has three roles: the agent of the events of an API server, the process in its own user and network
// namespaces, and the process that starts the latter and passes its exit code on.
func main() {
	if len(os.Args) > 1 && os.Args[1] == agentArgument {
		os.Exit(runAgent(os.Args[2:]))
	}
	code, done, err := lab.Reexec()
	if err == nil && !done {
		err = run(parseFlags())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// With -only, which names events of changes, the other parts are left out unless they are asked for.
func parseFlags() options {
	var o options
	flag.BoolVar(&o.changes, "changes", false, "measure changes: the engine and the cache against the floor and others")
	flag.BoolVar(&o.events, "events", false, "measure events of a real API server, through the whole agent")
	flag.BoolVar(&o.datapath, "datapath", false, "measure packets")
	flag.BoolVar(&o.large, "large", false, "measure changes of one very large pod")
	flag.BoolVar(&o.full, "full", false, "measure all sizes, longer")
	flag.BoolVar(&o.smoke, "smoke", false, "run everything that there is as short as can be: whether it works")
	flag.BoolVar(&o.json, "json", false, "print JSON instead of tables")
	flag.StringVar(&o.chart, "chart", "", "also draw the latencies over the number of peers into this SVG `file`")
	flag.StringVar(&o.document, "write", "", "also put the tables between the markers in this Markdown `file`; refused on a busy machine")
	flag.IntVar(&o.peers, "peers", 0, "measure only this number of peers")
	flag.IntVar(&o.pods, "pods", 0, "measure only this number of local pods (with -peers; default 1)")
	flag.BoolVar(&o.raw, "raw", false, "with -peers: leave out the ways that run nft")
	flag.DurationVar(&o.budget, "time", 0, "how long each way may take for each cycle of events (default 300ms; 2s with -full)")
	flag.StringVar(&o.only, "only", "", "measure only the cycle of events that has this `word` in a name")
	flag.StringVar(&o.cpuProfile, "cpuprofile", "", "write a CPU profile into this `file`")
	flag.Parse()
	if !o.changes && !o.events && !o.datapath && !o.large {
		o.changes, o.events, o.datapath = true, o.only == "", o.only == ""
	}
	return o
}

// run measures the wanted parts, then delivers the report. An error of a part ends the run without a report: half of
// a document would be of another machine or time than the other half.
func run(o options) (err error) {
	if o.cpuProfile != "" {
		f, err := os.Create(o.cpuProfile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	if o.document != "" || o.chart != "" {
		if err := report.AwaitQuiet(); err != nil {
			return err
		}
	}
	watch, err := report.NewWatch()
	if err != nil {
		return err
	}
	var r results
	if o.changes || o.large {
		if r.Changes, err = measureChanges(o); err != nil {
			return err
		}
	}
	if o.events && canMeasureEvents(o) {
		if r.Events, err = measureEvents(o); err != nil {
			return err
		}
	}
	if o.datapath {
		if r.Packets, err = measureDatapath(o); err != nil {
			return err
		}
	}
	if r.Machine, err = watch.Machine(); err != nil {
		return err
	}
	return r.deliver(o)
}

// deliver prints the report, and writes it into the files that the flags name. It writes no file if other programs disturbed the run.
func (r *results) deliver(o options) error {
	if o.document != "" || o.chart != "" {
		if err := r.Machine.Quiet(); err != nil {
			fmt.Println(r.text())
			return err
		}
	}
	if o.chart != "" {
		if err := os.WriteFile(o.chart, []byte(drawLatency(r.Changes)), 0o644); err != nil {
			return err
		}
	}
	if o.document != "" {
		if err := report.Write(o.document, "bench", r.sections()); err != nil {
			return err
		}
	}
	if o.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", " ")
		return e.Encode(r)
	}
	_, err := os.Stdout.WriteString(r.text())
	return err
}

// measureChanges measures all sizes of the plan and names each size on standard error when it starts.
func measureChanges(o options) (rows []row, err error) {
	if o.only != "" {
		keepCycles(o.only)
	}
	started := time.Now()
	for _, p := range plan(o) {
		fmt.Fprintf(os.Stderr, "%4.0fs  %s\n", time.Since(started).Seconds(), p.size)
		more, err := runSize(p.size, p.ways, p.limits)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// keepCycles drops each cycle without an event whose name contains the word.
func keepCycles(word string) {
	var kept [][]event
	for _, events := range cycles {
		for _, e := range events {
			if strings.Contains(e.name, word) {
				kept = append(kept, events)
				break
			}
		}
	}
	cycles = kept
}
