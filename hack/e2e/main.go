// Command e2e deploys the agent on a real Kubernetes, the way a user does, and looks at what packets
// the policies let through. It needs root and nothing else: hack/cluster makes the cluster.
//
// Each check prints one line, and the last line counts them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	root := flag.String("root", ".", "the project's folder")
	keep := flag.Bool("keep", false, "leave the cluster up")
	noAgent := flag.Bool("no-agent", false, "stop before the agent is deployed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	r := &report{start: time.Now()}
	if err := run(ctx, r, *root, *keep, *noAgent); err != nil {
		r.check("the run itself", err)
	}
	fmt.Printf("%d passed, %d failed\n", r.passed, r.failed)
	if r.failed > 0 {
		os.Exit(1)
	}
}

// run brings a cluster up, plays the scenario on it, and takes it down however that ended.
func run(ctx context.Context, r *report, root string, keep, noAgent bool) (err error) {
	root, err = filepath.Abs(root)
	if err != nil {
		return err
	}
	c := newCluster(root)
	if err := c.build(ctx, !noAgent); err != nil {
		return fmt.Errorf("build: %w", err)
	}
	r.note("built")
	// An earlier run that was stopped may have left one.
	if err := c.down(); err != nil {
		return err
	}
	if !keep {
		defer func() { err = errors.Join(err, c.down()) }()
	}
	if err := c.up(ctx); err != nil {
		return fmt.Errorf("bring the cluster up: %w", err)
	}
	r.note("the cluster is up")
	s := &scenario{cluster: c, report: r}
	err = s.play(ctx, noAgent)
	if err != nil || r.failed > 0 {
		c.diagnose(s.pods)
	}
	return err
}
