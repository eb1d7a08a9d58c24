package command

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// pipeline is what runs from the inputs to the kernel. The agent and the demo differ in where the inputs come from.
type pipeline struct {
	informers  *informers.Informers
	reconciler *reconciler
	sandboxes  sandboxSource
	background []func(ctx context.Context)
	hooks      func(ctx context.Context) // enforces at once what starts; runs when all inputs are known; may be nil
}

// sandboxSource tells the cache where pods run.
type sandboxSource interface {
	Run(ctx context.Context)
	HasSynced() bool
}

// errStopped is an end before everything was known.
var errStopped = errors.New("stopped before all inputs were known")

// run works until the context ends. Nothing is written to a kernel before every input is in sync: what is enforced from
// an earlier run may be right, and what half of the objects would give is wrong.
func (p *pipeline) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	for _, f := range p.background {
		running.Go(func() { f(ctx) })
	}
	running.Go(func() { p.sandboxes.Run(ctx) })
	p.informers.Start(ctx)
	defer p.waitForInformers()
	defer cancel()
	if err := p.waitForSync(ctx); err != nil {
		return
	}
	if p.hooks != nil {
		running.Go(func() { p.hooks(ctx) })
	}
	p.reconciler.Run(ctx)
}

// waitForInformers does so for a moment: one that pauses between two tries does not notice the end before the next one.
func (p *pipeline) waitForInformers() {
	done := make(chan struct{})
	go func() { p.informers.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Second):
	}
}

// waitForSync logs now and then what it waits for.
func (p *pipeline) waitForSync(ctx context.Context) error {
	log := logr.FromContextOrDiscard(ctx)
	start := time.Now()
	poll, remind := time.NewTicker(5*time.Millisecond), time.NewTicker(10*time.Second)
	defer poll.Stop()
	defer remind.Stop()
	for {
		missing := p.missing()
		if len(missing) == 0 {
			log.Info("All inputs are known, enforcing", "took", time.Since(start).Round(time.Millisecond))
			return nil
		}
		select {
		case <-poll.C:
		case <-remind.C:
			log.Info("Waiting for the inputs; what is enforced stays", "missing", strings.Join(missing, ", "))
		case <-ctx.Done():
			return errStopped
		}
	}
}

func (p *pipeline) missing() []string {
	var missing []string
	if !p.informers.HasSynced() {
		missing = append(missing, "the API server's objects")
	}
	if !p.sandboxes.HasSynced() {
		missing = append(missing, "the container runtime's sandboxes")
	}
	return missing
}
