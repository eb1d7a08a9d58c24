package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	// run and skip are regular expressions on names of attacks; an empty run chooses all, an empty skip leaves out
	// none
	run   string
	skip  string
	list  bool
	quick bool
	hold  time.Duration // of an attack after its start, unless it says otherwise
	// agent is the path of a binary; empty: it is built
	agent string
	// The other fields are paths of files and directories; empty: not written.
	out      string
	keepLogs string
	profile  string
}

// addFlags defines the flags. The supervisor passes its whole command line to the rig, so both read the same flags.
func (o *options) addFlags(f *flag.FlagSet) {
	f.StringVar(&o.run, "run", "", "run only the attacks whose names match the regular expression")
	f.StringVar(&o.skip, "skip", "", "leave out the attacks whose names match the regular expression")
	f.BoolVar(&o.list, "list", false, "list the attacks and exit")
	f.BoolVar(&o.quick, "quick", false, "run one attack of each kind, for development")
	f.DurationVar(&o.hold, "hold", holdTime, "how long an attack lasts after it has started, unless it says otherwise")
	f.StringVar(&o.agent, "agent", "", "binary of the agent, instead of building it from this repository")
	f.StringVar(&o.out, "out", "", "file for the page of the documents about the results")
	f.StringVar(&o.keepLogs, "logs", "", "directory to keep the logs of all processes in")
	f.StringVar(&o.profile, "profile", "", "directory for a CPU and a heap profile of the agent during each attack")
}

// chosen returns the attacks that the flags choose.
func (o *options) chosen() ([]attack, error) {
	pattern, err := regexp.Compile(o.run)
	if err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	skip, err := regexp.Compile(o.skip)
	if err != nil {
		return nil, fmt.Errorf("-skip: %w", err)
	}
	var list []attack
	for _, a := range attacks() {
		if pattern.MatchString(a.name) && (o.skip == "" || !skip.MatchString(a.name)) && (!o.quick || a.quick) {
			list = append(list, a)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no attack matches")
	}
	return list, nil
}

func main() { os.Exit(run()) }

// run is the supervisor, unless the environment says that this process is the rig. The exit code is 2 for wrong
// flags, and 1 if an attack broke a bound or the run failed.
func run() int {
	var o options
	o.addFlags(flag.CommandLine)
	flag.Parse()
	chosen, err := o.chosen()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if o.list {
		for _, a := range chosen {
			fmt.Printf("%-28s %s\n", a.name, a.does)
		}
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if dir := os.Getenv(rigVariable); dir != "" {
		return runRig(ctx, dir, o, chosen)
	}
	code, err := supervise(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}
