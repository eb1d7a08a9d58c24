package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

func main() {
	// The kernel delivers no signal without a handler to the first process of a pod. Without this handler each pod would take its
	// whole grace period to end.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if len(os.Args) < 2 {
		fail("want serve, dial, flood or count")
	}
	switch args := os.Args[2:]; os.Args[1] {
	case "serve":
		flags := flag.NewFlagSet("serve", flag.ExitOnError)
		tcp := flags.String("tcp", "", "TCP ports, separated by commas")
		udp := flags.String("udp", "", "UDP ports, separated by commas")
		parse(flags, args)
		if err := serve(ctx, *tcp, *udp); err != nil {
			fail(err)
		}
	case "dial":
		flags := flag.NewFlagSet("dial", flag.ExitOnError)
		timeout := flags.Duration("timeout", time.Second, "how long to wait for an answer; SIGTERM ends it earlier")
		interval := flags.Duration("interval", 200*time.Millisecond, "how often to send a datagram again")
		parse(flags, args)
		ctx, cancel := context.WithTimeout(ctx, *timeout)
		defer cancel()
		if !dialAll(ctx, *interval, flags.Args()) {
			os.Exit(1)
		}
	case "flood":
		flags := flag.NewFlagSet("flood", flag.ExitOnError)
		timeout := flags.Duration("timeout", time.Second, "how long to send, at least")
		interval := flags.Duration("interval", time.Millisecond, "between two datagrams")
		ready := flags.Bool("ready", false, "print a line when the flood starts, as count does")
		parse(flags, args)
		ctx, cancel := context.WithTimeout(ctx, *timeout)
		defer cancel()
		if err := flood(ctx, *interval, flags.Arg(0), *ready); err != nil {
			fail(err)
		}
	case "count":
		flags := flag.NewFlagSet("count", flag.ExitOnError)
		udp := flags.String("udp", "", "UDP port")
		parse(flags, args)
		if err := count(ctx, *udp); err != nil {
			fail(err)
		}
	default:
		fail("want serve, dial, flood or count, not ", os.Args[1])
	}
}

// parse exits the program if the arguments are invalid: the flag set has ExitOnError.
// The flag set has already printed the usage.
func parse(flags *flag.FlagSet, args []string) {
	if err := flags.Parse(args); err != nil {
		fail(err)
	}
}

// fail prints the reason and exits with 2, so that a test tells a wrong call from a target without an answer, which
// is 1.
func fail(reason ...any) {
	fmt.Fprintln(os.Stderr, "probe:", fmt.Sprint(reason...))
	os.Exit(2)
}

// answer is the line that dial prints for a target.
type answer struct {
	Target string `json:"target"`
	Result string `json:"result"` // open, refused, timeout or error
	Error  string `json:"error,omitempty"`
}

// dialAll probes all targets, prints the answers, and reports whether all targets answered.
// All targets are probed at the same time; answers are printed in the order of the targets, a line of JSON for each.
func dialAll(ctx context.Context, interval time.Duration, targets []string) bool {
	answers := make([]answer, len(targets))
	var wg sync.WaitGroup
	for i, target := range targets {
		wg.Go(func() {
			err := dial(ctx, interval, target)
			answers[i] = answer{Target: target, Result: result(err)}
			if err != nil {
				answers[i].Error = err.Error()
			}
		})
	}
	wg.Wait()
	open, out := true, json.NewEncoder(os.Stdout)
	for _, a := range answers {
		open = open && a.Result == "open"
		if err := out.Encode(a); err != nil {
			fail(err)
		}
	}
	return open
}

// dial probes a target such as tcp://10.0.0.1:80 until it answers or the context ends.
func dial(ctx context.Context, interval time.Duration, target string) error {
	u, err := url.Parse(target)
	if err != nil {
		return err
	}
	switch u.Scheme {
	case "tcp":
		return dialTCP(ctx, u.Host)
	case "udp":
		return dialUDP(ctx, interval, u.Host)
	}
	return fmt.Errorf("%s: want tcp:// or udp://", target)
}
