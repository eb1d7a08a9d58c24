package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// shortfallInterval is how often it is looked for what valid policies do not do.
const shortfallInterval = 10 * time.Second

// agentOptions are the flags of the agent.
type agentOptions struct {
	version     string
	hostname    string
	removeTaint bool
	api         apiOptions
	runtime     runtimeOptions
	nri         nriOptions
	table       tableOptions
	endpoints   endpointOptions
}

func (o *agentOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.hostname, "hostname-override", "", "name of this node; without it, the host name")
	flags.BoolVar(&o.removeTaint, "remove-node-taint", false, "remove the taint "+notReadyTaint+" from this node when the agent is ready")
	o.api.addFlags(flags)
	o.runtime.addFlags(flags)
	o.nri.addFlags(flags)
	o.table.addFlags(flags)
	o.endpoints.addFlags(flags)
}

func (o *agentOptions) run(ctx context.Context) error {
	node, err := o.node()
	if err != nil {
		return err
	}
	options, err := o.table.load(node)
	if err != nil {
		return err
	}
	watched, err := o.observe()
	if err != nil {
		return err
	}
	defer closeAll(watched.endpoints)
	config, err := o.api.restConfig()
	if errors.Is(err, errNotInCluster) {
		return fmt.Errorf("%w (the demo needs no cluster: run `%s demo`)", err, program)
	}
	if err != nil {
		return err
	}
	source, err := informers.FromClients(config)
	if err != nil {
		return err
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("client of the core API: %w", err)
	}
	features, err := engine.Probe()
	if err != nil {
		return fmt.Errorf("this kernel, or the rights of this process, will not do: %w", err)
	}
	if err := engine.Try(cache.Trial(options)); err != nil {
		return fmt.Errorf("this kernel does not take the rules for all pods: %w", err)
	}
	state := cache.New(options)
	watched.metrics.countPolicies = options.PolicyCounters
	reconciler := watched.reconciler(state, openEngine(features))
	events := informers.NewEvents(kube.CoreV1(), node)
	sandboxes := informers.NewSandboxes(informers.SandboxConfig{
		Endpoint: o.runtime.endpoint, HostPrefix: o.runtime.hostPrefix, Sink: state, Notify: reconciler.Notify,
		Found: watched.progress.found, Outage: watched.metrics.outage,
	})
	traces := newAnnotatedTraces(ctx, node, state)
	inputs, err := informers.New(ctx, informers.Config{
		Source: source, Sink: tracedSink{datedSink{state, watched.progress}, traces}, Node: node, Notify: reconciler.Notify,
		Reporter: informers.NewReporter(events), LocalPod: sandboxes.Poke, Outage: watched.metrics.outage,
	})
	if err != nil {
		return err
	}
	nri := o.nri.config(node, o.runtime.hostPrefix)
	nri.Sandboxes, nri.Events, nri.Announce, nri.Enforce = sandboxes, events, state.AnnouncePod, reconciler.EnforceNow
	nri.Outage, nri.Hooked = watched.metrics.outage, watched.metrics.hooked
	log := logr.FromContextOrDiscard(ctx)
	log.Info("Starting", "version", o.version, "node", node, "server", config.Host,
		"networkPlugins", strings.Join(options.NetworkPlugins, ","), "kernelProtectsTables", features.Owner)
	p := pipeline{
		informers: inputs, reconciler: reconciler, sandboxes: sandboxes, background: append(watched.background(), events.Run, traces.Run),
		hooks: informers.NewNRI(ctx, nri).Run,
	}
	p.background = append(p.background, func(ctx context.Context) {
		informers.ReportShortfalls(ctx, events, state.Shortfalls, shortfallInterval)
	})
	watched.health.follow(p.missing)
	if o.removeTaint {
		p.background = append(p.background, func(ctx context.Context) {
			removeTaint(ctx, kube.CoreV1().Nodes(), node, watched.health)
		})
	}
	p.run(ctx)
	log.Info("Stopped; the rules stay in force")
	return nil
}

func (o *agentOptions) node() (string, error) {
	name := o.hostname
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("name of this node: %w", err)
		}
		name = host
	}
	// The kubelet does the same to the name it registers under.
	return strings.ToLower(strings.TrimSpace(name)), nil
}
