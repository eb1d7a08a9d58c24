package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// defaultNetworkPlugins are the plugin types that give a pod an interface of its own in its network namespace.
var defaultNetworkPlugins = []string{"macvlan", "ipvlan", "sriov", "host-device", "bridge"}

// agentOptions are the flags of the agent.
type agentOptions struct {
	version         string
	kubeconfig      string
	hostname        string
	networkPlugins  []string
	runtimeEndpoint string
	hostPrefix      string
	acceptICMP      bool
	acceptICMPv6    bool
}

func (o *agentOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file; without it, the pod's service account")
	flags.StringVar(&o.hostname, "hostname-override", "", "name of this node; without it, the host name")
	flags.StringSliceVar(&o.networkPlugins, "network-plugins", defaultNetworkPlugins,
		"plugin types of the networks that policies isolate")
	flags.StringVar(&o.runtimeEndpoint, "container-runtime-endpoint", "",
		"socket of the container runtime; without it, containerd's or CRI-O's usual one")
	flags.StringVar(&o.hostPrefix, "host-prefix", "", "where the host's root directory is mounted")
	flags.BoolVar(&o.acceptICMP, "accept-icmp", false, "let all ICMP pass")
	flags.BoolVar(&o.acceptICMPv6, "accept-icmpv6", false, "let all ICMPv6 pass; neighbour discovery always does")
}

func (o *agentOptions) run(ctx context.Context) error {
	node, err := o.node()
	if err != nil {
		return err
	}
	config, err := o.restConfig()
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
	state := cache.New(cache.Options{
		Node: node, NetworkPlugins: o.networkPlugins, AcceptICMP: o.acceptICMP, AcceptICMPv6: o.acceptICMPv6,
	})
	features, err := engine.Probe()
	if err != nil {
		return fmt.Errorf("this kernel, or the rights of this process, will not do: %w", err)
	}
	reconciler := newReconciler(state, openEngine(features))
	events := informers.NewEvents(kube.CoreV1(), node)
	sandboxes := informers.NewSandboxes(informers.SandboxConfig{
		Endpoint: o.runtimeEndpoint, HostPrefix: o.hostPrefix, Sink: state, Notify: reconciler.Notify,
	})
	inputs, err := informers.New(ctx, informers.Config{
		Source: source, Sink: state, Node: node, Notify: reconciler.Notify,
		Reporter: informers.NewReporter(events), LocalPod: sandboxes.Poke,
	})
	if err != nil {
		return err
	}
	log := logr.FromContextOrDiscard(ctx)
	log.Info("Starting", "version", o.version, "node", node, "server", config.Host,
		"networkPlugins", strings.Join(o.networkPlugins, ","), "kernelProtectsTables", features.Owner)
	p := pipeline{
		informers: inputs, reconciler: reconciler, sandboxes: sandboxes, background: []func(context.Context){events.Run},
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

func (o *agentOptions) restConfig() (*rest.Config, error) {
	if o.kubeconfig != "" {
		config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("read --kubeconfig %s: %w", o.kubeconfig, err)
		}
		return rest.AddUserAgent(config, program), nil
	}
	config, err := rest.InClusterConfig()
	switch {
	case errors.Is(err, rest.ErrNotInCluster):
		return nil, errors.New("not in a cluster: --kubeconfig must name a file (the demo needs no cluster: run `" +
			program + " demo`)")
	case err != nil:
		return nil, fmt.Errorf("service account of the pod: %w", err)
	}
	return rest.AddUserAgent(config, program), nil
}
