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
	var o options
	flag.StringVar(&o.root, "root", ".", "the project's folder")
	flag.StringVar(&o.release, "release", "", "folder of a release to install, instead of building one")
	flag.StringVar(&o.image, "image", "", "archive of the agent's image, as "+agentImage+", instead of a release")
	flag.BoolVar(&o.keep, "keep", false, "leave the cluster up")
	flag.BoolVar(&o.noAgent, "no-agent", false, "stop before the agent is deployed")
	flag.BoolVar(&o.migration, "migration", false, "run only the migration from other agents and back")
	flag.BoolVar(&o.transcript, "transcript", false, "run only the commands of docs/quick-start.md")
	flag.BoolVar(&o.update, "update", false, "with -transcript, write the output of the commands into docs/quick-start.md")
	flag.StringVar(&o.oldAgents, "old-agents", "", "folder with the programs of the agents from which to migrate, instead of their recorded rules: "+
		"multi-networkpolicy-iptables, multi-networkpolicy-nftables")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	r := &report{start: time.Now()}
	if err := run(ctx, r, o); err != nil {
		r.check("the run itself", err)
	}
	fmt.Printf("%d passed, %d failed\n", r.passed, r.failed)
	if r.failed > 0 {
		os.Exit(1)
	}
}

// options are the flags of the command.
// The zero value builds a release, and runs everything, and takes the cluster down.
type options struct {
	root, release, image, oldAgents string
	keep, noAgent, migration        bool
	transcript, update              bool
}

// run starts a cluster, plays the scenario on it, and takes the cluster down, also after an error.
func run(ctx context.Context, r *report, o options) (err error) {
	root, err := filepath.Abs(o.root)
	if err != nil {
		return err
	}
	// Nothing of a cluster exists before this point, so an error of the build leaves nothing behind.
	c := newCluster(root, o.oldAgents)
	if err := c.build(ctx); err != nil {
		return fmt.Errorf("build: %w", err)
	}
	if err := c.agent(ctx, o); err != nil {
		return fmt.Errorf("image of the agent: %w", err)
	}
	r.note("built")
	// An interrupted run may have left a cluster.
	if err := c.down(); err != nil {
		return err
	}
	defer func() {
		if o.keep {
			r.note("the cluster stays: CLUSTER_DIR=%s hack/cluster/in.sh cp kubectl get pods -A", c.dir)
			return
		}
		err = errors.Join(err, c.down())
	}()
	if err := c.up(ctx); err != nil {
		return fmt.Errorf("bring the cluster up: %w", err)
	}
	if err := c.nameImage(ctx); err != nil {
		return fmt.Errorf("name the image of the release: %w", err)
	}
	r.note("the cluster is up")
	// Failed checks are in the report, and the deferred call takes the cluster down in any case.
	s := &scenario{cluster: c, report: r}
	return s.play(ctx, o)
}
