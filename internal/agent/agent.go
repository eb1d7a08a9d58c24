package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers/sandbox"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/reconciler"
)

// Periods between checks for valid policies that have no effect, and for room for policies that exceed a limit.
const (
	shortfallInterval = 10 * time.Second
	roomInterval      = 10 * time.Second
)

// Config configures an agent. Server and Cache.Node are required.
type Config struct {
	Version string
	Server  *rest.Config  // the API server
	Cache   cache.Options // Cache.Node is the name of this node

	// The inputs from the container runtime: CRI and NRI.
	RuntimeEndpoint string // socket of the container runtime; empty: the well-known sockets
	HostPrefix      string // where the host's root directory is mounted
	NRISocket       string // a path, sandbox.NRIAuto or sandbox.NRINone

	MetricsAddress, HealthAddress string // empty: no listener
	Profiles                      bool   // serve profiles beside the metrics
	RemoveTaint                   bool   // remove the taint of nodes without a ready agent
}

// Run runs an agent until the context ends. The context carries the logger. Tables stay in force when Run returns. An
// error means that the agent could not start, and that it has changed nothing; see AddressError.
func Run(ctx context.Context, config Config) error {
	// The listeners come first: a wrong address must end the agent before it connects to anything.
	watched, err := observe(config)
	if err != nil {
		return err
	}
	defer closeAll(watched.endpoints)
	config.Cache.LockHeld = watched.metrics.lockHeld
	// The probe precedes the cache, since it sets options of the cache.
	features, err := probe(ctx, &config.Cache)
	if err != nil {
		return err
	}
	state := cache.New(config.Cache)
	settings := informers.Settings{Node: config.Cache.Node, Limits: state.Limits()}
	source, err := informers.FromClients(config.Server, settings)
	if err != nil {
		return err
	}
	core, err := informers.NewCore(config.Server)
	if err != nil {
		return err
	}
	log := logr.FromContextOrDiscard(ctx)
	log.Info("Starting", "version", config.Version, "node", config.Cache.Node, "server", config.Server.Host,
		"networkPlugins", strings.Join(config.Cache.NetworkPlugins, ","), "kernelProtectsTables", features.Owner)

	// The parts are made in the direction of the data, from the cache to the kernel and back to the inputs. Nothing
	// runs before p.Run.
	reported := newDropLog(ctx, state)
	reconciler := watched.reconciler(config, state, reconciler.OpenNamespace(features), reported)
	events := informers.NewEvents(core, config.Cache.Node)
	reporter := informers.NewReporter(events)
	sandboxes := sandbox.New(sandbox.Config{
		Endpoint: config.RuntimeEndpoint, HostPrefix: config.HostPrefix, Sink: state, Notify: reconciler.Notify,
		Found: watched.progress.found, Outage: watched.metrics.Outage,
	})
	traces := newTraces(ctx, state)
	in := informers.New(ctx, informers.Config{
		Source: source, Sink: state, Settings: settings, Notify: reconciler.Notify, Reporter: reporter,
		Observer: &inputs{watched.metrics, watched.progress, sandboxes, traces},
	})
	nri := sandbox.NewNRI(ctx, sandbox.NRIConfig{
		Socket: config.NRISocket, HostPrefix: config.HostPrefix, Node: config.Cache.Node, Sandboxes: sandboxes, Settings: settings,
		Announce: state.AnnouncePod, Enforce: reconciler.EnforceNow, Events: events, Observer: watched.metrics,
	})
	watched.metrics.watch(sources{state, watched.progress, reconciler, reporter, events, traces, reported})
	// Hooks run when all inputs are in sync, Background from the start.
	p := &Pipeline{Informers: in, Reconciler: reconciler, Sandboxes: sandboxes, Hooks: nri.Run}
	p.Background = append(watched.background(), events.Run, reporter.Run, traces.Run, reported.Run, func(ctx context.Context) {
		informers.ReportShortfalls(ctx, events, state.Shortfalls, shortfallInterval)
	}, func(ctx context.Context) {
		reconsider(ctx, state, reconciler)
	}, func(ctx context.Context) {
		watchNodeName(ctx, state, config.Cache.Node, nodeNameInterval)
	})
	// From here on, health knows the inputs.
	watched.health.follow(func() []string {
		missing := p.missing()
		// Not an input of the pipeline: NRI connects when all inputs are in sync.
		if nri.IsAwaited() {
			missing = append(missing, "the container runtime's NRI")
		}
		return missing
	}, reconciler.Stalled)
	// The taint goes when the agent is ready for the first time, so this depends on health.
	if config.RemoveTaint {
		p.Background = append(p.Background, func(ctx context.Context) {
			removeTaint(ctx, core, config.Cache.Node, watched.health)
		})
	}
	p.Run(ctx)
	log.Info("Stopped; enforced policies stay in force")
	return nil
}

// reconsider gives policies that exceed a limit of their namespace another try at intervals: room can come from a pod
// that shrinks, which no event of the policy reports.
// It returns when the context ends.
func reconsider(ctx context.Context, state *cache.Cache, r *reconciler.Reconciler) {
	ticker := time.NewTicker(roomInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			state.Reconsider()
			r.Notify()
		case <-ctx.Done():
			return
		}
	}
}

// probe asks the kernel for its features, and tries the rules that all pods share, in a namespace of its own. A rule
// that the kernel refuses there would make every batch of every pod fail. It sets the support for bridges in the
// options.
// Nothing of it stays in the kernel.
func probe(ctx context.Context, o *cache.Options) (engine.Features, error) {
	features, err := engine.Probe()
	if err != nil {
		return features, fmt.Errorf("this kernel, or the rights of this process, are not sufficient: %w", err)
	}
	log := logr.FromContextOrDiscard(ctx)
	err = engine.Try(engine.Inet, cache.Trial(*o)[engine.Inet])
	if err != nil && o.LogsAudits() {
		without := *o
		without.DropLog = cache.DropLogNone
		if engine.Try(engine.Inet, cache.Trial(without)[engine.Inet]) == nil {
			log.Info("Dropped packets are not reported: the kernel has no NFLOG (CONFIG_NFT_LOG, CONFIG_NETFILTER_NETLINK_LOG)", "cause", err.Error())
			*o, err = without, nil
		}
	}
	if err != nil {
		return features, fmt.Errorf("this kernel refuses the rules for all pods: %w", err)
	}
	var cause error
	switch o.Bridge, cause = ProbeBridge(*o); o.Bridge {
	case cache.BridgeDrops:
		log.Info("Virtual machines cut off: the kernel cannot enforce policies in bridges, so all IP packets of isolated interfaces are dropped there",
			"cause", cause.Error())
	case cache.BridgeMissing:
		log.Info("Virtual machines not isolated: the kernel has no nf_tables for bridges", "cause", cause.Error())
	}
	return features, nil
}

// ProbeBridge returns the support of the kernel for policies in bridges. cause is the reason if there is no support. It
// tries a table with connection tracking first, and then a table that only drops.
func ProbeBridge(o cache.Options) (support cache.BridgeSupport, cause error) {
	for _, o.Bridge = range []cache.BridgeSupport{cache.BridgeStateful, cache.BridgeDrops} {
		err := engine.Try(engine.Bridge, cache.Trial(o)[engine.Bridge])
		if err == nil {
			return o.Bridge, cause
		}
		cause = err
	}
	return cache.BridgeMissing, cause
}

// inputs observes the objects on their way into the cache. It embeds metrics for Outage.
type inputs struct {
	*metrics
	progress  *progress
	sandboxes *sandbox.Sandboxes
	traces    *traces
}

// Received implements informers.Observer.
// The time of the change counts, and not the time of the receipt, as the start of network programming.
func (i *inputs) Received(r informers.Receipt) { i.progress.changed(r.Kind, r.Changed) }

// Taken implements informers.Observer.
func (i *inputs) Taken(r informers.Receipt) {
	if r.Kind == informers.KindPolicy {
		i.policies.meet(r.Key)
	}
	// The runtime may have the sandbox of the pod already, so it is asked at once.
	if r.IsLocal {
		i.drops.meet(r.Key)
		i.sandboxes.Poke(r.UID)
		i.traces.observe(cache.PodID{Key: r.Key, UID: r.UID}, r.Trace)
	}
}

// Gone implements informers.Observer.
func (i *inputs) Gone(kind string, key cache.Key) {
	switch kind {
	case informers.KindPod:
		i.traces.drop(key)
		i.drops.forget(key)
	case informers.KindPolicy:
		i.policies.forget(key)
	}
}
