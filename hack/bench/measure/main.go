// Command bench measures what changes cost: by this agent, at the floor (messages made before, one system call to send
// them, one to read the acknowledgement), and in the ways of agents that run nft. It prints one table of latencies and
// one of costs. The tables are in network namespaces of its own, so it can run anywhere, as root or in a user namespace.
//
//	go run ./hack/bench                 the quick run
//	go run ./hack/bench -full           all sizes
//	go run ./hack/bench -large          one pod with 200 policies, 16 interfaces, 100,000 peers and 5,000 ports
//	go run ./hack/bench -datapath       what the rules cost each packet
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/lab"
)

// options are the flags.
type options struct {
	full, large, datapath, json, raw bool
	chart, cpuProfile                string
	peers, pods                      int
	budget                           time.Duration
	only                             string
}

func main() {
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

func parseFlags() options {
	var o options
	flag.BoolVar(&o.full, "full", false, "measure all sizes, longer")
	flag.BoolVar(&o.large, "large", false, "measure one very large pod")
	flag.BoolVar(&o.datapath, "datapath", false, "measure packets instead of changes")
	flag.BoolVar(&o.json, "json", false, "print JSON instead of tables")
	flag.StringVar(&o.chart, "chart", "", "also draw the latencies over the number of peers into this SVG `file`")
	flag.IntVar(&o.peers, "peers", 0, "measure only this number of peers")
	flag.IntVar(&o.pods, "pods", 0, "measure only this number of local pods (with -peers; default 1)")
	flag.BoolVar(&o.raw, "raw", false, "with -peers: leave out the ways that run nft")
	flag.DurationVar(&o.budget, "time", 0, "how long each way may take for each cycle of events (default 300ms; 2s with -full)")
	flag.StringVar(&o.only, "only", "", "measure only the cycle of events that has this `word` in a name")
	flag.StringVar(&o.cpuProfile, "cpuprofile", "", "write a CPU profile into this `file`")
	flag.Parse()
	return o
}

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
	if o.datapath {
		return runDatapath(o)
	}
	if o.only != "" {
		keepCycles(o.only)
	}
	result := report{Machine: thisMachine()}
	started := time.Now()
	for _, p := range plan(o) {
		fmt.Fprintf(os.Stderr, "%4.0fs  %s\n", time.Since(started).Seconds(), p.size)
		rows, err := runSize(p.size, p.ways, p.limits)
		if err != nil {
			return err
		}
		result.Rows = append(result.Rows, rows...)
	}
	result.Machine.LoadAfter = load()
	if o.chart != "" {
		if err := os.WriteFile(o.chart, []byte(drawLatency(result.Rows)), 0o644); err != nil {
			return err
		}
	}
	if o.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", " ")
		return e.Encode(result)
	}
	return result.print(os.Stdout)
}

// keepCycles drops the cycles that have no event with the word in its name.
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
