package agent

import (
	"context"
	"errors"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/reconciler"
)

// Pipeline connects the stages from the inputs to the kernel. The agent and the demo have different inputs.
// The zero value is not usable: the first three fields are required.
type Pipeline struct {
	Informers  *informers.Informers
	Reconciler *reconciler.Reconciler
	// Sandboxes must use the same cache as Informers.
	Sandboxes SandboxSource
	// Background runs from the start to the end of Run, for listeners, reports and the like.
	Background []func(ctx context.Context)
	Hooks      func(ctx context.Context) // enforces pods that start; runs once all inputs are in sync; may be nil
}

// SandboxSource tells the cache where pods run.
// Run adds and removes sandboxes until the context ends. HasSynced reports whether the cache has had a first list of
// them.
type SandboxSource interface {
	Run(ctx context.Context)
	HasSynced() bool
}

// errStopped is the error of waitForSync if the context ends before all inputs are in sync.
var errStopped = errors.New("stopped before all inputs were in sync")

// Run works until the context ends. It writes nothing to a kernel before every input is in sync: tables of an earlier
// run are at least consistent, and tables from half of the objects are wrong.
func (p *Pipeline) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	for _, f := range p.Background {
		running.Go(func() { f(ctx) })
	}
	running.Go(func() { p.Sandboxes.Run(ctx) })
	p.Informers.Start(ctx)
	// The order at the end: cancel, wait for the informers, then for all other goroutines.
	defer p.waitForInformers()
	defer cancel()
	if err := p.waitForSync(ctx); err != nil {
		return
	}
	// A hook before this point would enforce incomplete rules.
	if p.Hooks != nil {
		running.Go(func() { p.Hooks(ctx) })
	}
	p.Reconciler.Run(ctx)
}

// waitForInformers waits up to a second: a reflector in back-off notices cancellation only at its next try.
// A watch that still runs after that ends with the process.
func (p *Pipeline) waitForInformers() {
	done := make(chan struct{})
	go func() { p.Informers.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Second):
	}
}

// startGC is the percentage of garbage in the heap while the first lists arrive: then nearly all allocations are garbage. With
// 100,000 pods in the cluster, the heap stays below 150 MiB, not 250 MiB.
const startGC = 30

// waitForSync returns when all inputs are in sync. It logs at intervals which inputs are missing.
func (p *Pipeline) waitForSync(ctx context.Context) error {
	log := logr.FromContextOrDiscard(ctx)
	start := time.Now()
	percent := debug.SetGCPercent(startGC)
	if percent < startGC { // the user's GOGC, or off
		debug.SetGCPercent(percent)
	}
	// In the background, since the first pods must not wait for the collector.
	defer func() {
		go func() {
			runtime.GC() // frees the memory of the lists
			debug.SetGCPercent(percent)
			if percent == defaultGOGC { // not the user's GOGC
				relaxCollector(ctx)
			}
		}()
	}()
	poll, remind := time.NewTicker(5*time.Millisecond), time.NewTicker(10*time.Second)
	defer poll.Stop()
	defer remind.Stop()
	for {
		missing := p.missing()
		if len(missing) == 0 {
			log.Info("All inputs in sync, enforcing", "took", time.Since(start).Round(time.Millisecond))
			return nil
		}
		select {
		case <-poll.C:
		case <-remind.C:
			log.Info("Waiting for inputs; enforced policies stay in force", "missing", strings.Join(missing, ", "))
		case <-ctx.Done():
			return errStopped
		}
	}
}

// missing returns the names of the inputs that are not in sync, as log lines and /readyz show them.
// An empty list means that all are in sync.
func (p *Pipeline) missing() []string {
	var missing []string
	if !p.Informers.HasSynced() {
		missing = append(missing, "the API server's objects")
	}
	if !p.Sandboxes.HasSynced() {
		missing = append(missing, "the container runtime's sandboxes")
	}
	return missing
}
