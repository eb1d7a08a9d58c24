package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/report"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

// options are the flags of the command.
type options struct {
	parts, sizes                                     string
	namespaces, policies, local, rate, most, changes int
	nodes                                            int
	churn, load                                      time.Duration
	memory, document, chart                          string
}

// part is a measurement. It returns a section of the report.
type part struct {
	name string
	run  func(*options) (string, error)
}

// parts are the measurements in the order of the report.
var parts = []part{{"clusters", measureClusters}, {"events", measureEvents}, {"burst", measureBurst}, {"idle", measureIdle}, {"api", measureAPILoad}, {"enforcement", measureEnforcement}}

// run is main with an error. The program starts itself for each measurement: "scale agent URL LOCAL" is the agent's
// process.
func run(args []string) error {
	if len(args) == 3 && args[0] == "agent" {
		local, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return runAgent(args[1], local, os.Stdin, os.Stdout)
	}
	var o options
	f := flag.NewFlagSet("scale", flag.ContinueOnError)
	f.StringVar(&o.parts, "parts", "clusters", "measurements, separated by commas: clusters, events, burst, idle, api, enforcement")
	f.StringVar(&o.sizes, "pods", "1000,10000,100000", "numbers of pods of the clusters, in ascending order")
	f.IntVar(&o.namespaces, "namespaces", 5000, "namespaces of the clusters")
	f.IntVar(&o.policies, "policies", 2000, "policies of the clusters")
	f.IntVar(&o.local, "local", perNode, "pods on the agent's node in the clusters")
	f.IntVar(&o.rate, "rate", 1000, "pod events per second of the churn")
	f.DurationVar(&o.churn, "churn", 30*time.Second, "time of the churn in each cluster")
	f.StringVar(&o.memory, "memory", "550MiB", "GOMEMLIMIT of the agent; the default is the DaemonSet's")
	f.IntVar(&o.most, "most", 0, "fail if a remote pod takes more bytes in the largest cluster; 0: no limit")
	f.IntVar(&o.changes, "changes", 400, "changes of a peer in events")
	f.DurationVar(&o.load, "load", 2*time.Minute, "time of the churn in api")
	f.IntVar(&o.nodes, "nodes", 5000, "nodes in enforcement")
	f.StringVar(&o.document, "write", "", "also put the tables between the markers in this Markdown `file`; refused on a busy machine")
	f.StringVar(&o.chart, "chart", "", "also draw memory and start over the number of pods into this SVG `file`")
	if err := f.Parse(args); err != nil {
		return err
	}
	return measureParts(&o)
}

// measureParts runs the wanted measurements, prints their tables, and puts them into the document.
func measureParts(o *options) error {
	wanted := strings.Split(o.parts, ",")
	for _, name := range wanted {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) {
			return fmt.Errorf("-parts: no measurement %q", name)
		}
	}
	// The API load counts requests and bytes, which no other program disturbs, and CPU time.
	mustBeQuiet := o.document != "" && o.parts != "api" && o.parts != "enforcement"
	if mustBeQuiet {
		if err := report.AwaitQuiet(); err != nil {
			return err
		}
	}
	watch, err := report.NewWatch()
	if err != nil {
		return err
	}
	var sections []report.Section
	var failed error
	for _, p := range parts {
		if !slices.Contains(wanted, p.name) {
			continue
		}
		text, err := p.run(o)
		fmt.Println(text)
		failed = cmp.Or(failed, err)
		sections = append(sections, report.Section{Name: p.name, Text: text})
	}
	m, err := watch.Machine()
	fmt.Println(m)
	if failed == nil && err == nil && mustBeQuiet {
		err = m.Quiet()
	}
	if failed != nil || err != nil || o.document == "" {
		return cmp.Or(failed, err)
	}
	for i := range sections {
		sections[i].Text += "\n" + m.String() + "\n"
	}
	return report.Write(o.document, "scale", sections)
}
