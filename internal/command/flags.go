package command

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/agent"
)

// Flags that more than one command has.

// apiOptions say how to reach the API server.
type apiOptions struct{ kubeconfig string }

func (o *apiOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file; without it, the pod's service account")
}

func (o *apiOptions) restConfig() (*rest.Config, error) {
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
		return nil, fmt.Errorf("%w: --kubeconfig must name a file", errNotInCluster)
	case err != nil:
		return nil, fmt.Errorf("service account of the pod: %w", err)
	}
	return rest.AddUserAgent(config, program), nil
}

// errNotInCluster is a process that nobody told where the API server is.
var errNotInCluster = errors.New("not in a cluster")

// runtimeOptions say how to reach the container runtime and what it tells of.
type runtimeOptions struct{ endpoint, hostPrefix string }

func (o *runtimeOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.endpoint, "container-runtime-endpoint", "",
		"socket of the container runtime; without it, containerd's or CRI-O's usual one")
	flags.StringVar(&o.hostPrefix, "host-prefix", "", "where the host's root directory is mounted")
}

// What --established can be.
const (
	keepEstablished   = "keep"
	revokeEstablished = "revoke"
)

// tableOptions are what the tables of all pods are made of, beside the objects.
type tableOptions struct {
	networkPlugins []string
	unenforceable  []string // runtimes
	established    string
	policyCounters bool
	limits         policy.Limits
	common         commonOptions
}

func (o *tableOptions) addFlags(flags *pflag.FlagSet) {
	o.networkPlugins, o.limits = agent.DefaultNetworkPlugins(), policy.DefaultLimits()
	addList(flags, &o.networkPlugins, "network-plugins", "",
		"plugin types of the networks that policies isolate")
	o.unenforceable = cache.DefaultUnenforceableRuntimes()
	addList(flags, &o.unenforceable, "unenforceable-runtimes", "",
		"RuntimeClasses and handlers, as shell patterns, whose pods have a network stack of their own, which no rules reach")
	flags.StringVar(&o.established, "established", keepEstablished,
		"what becomes of connections that are no longer allowed: keep them, or `keep|revoke`: look at every packet")
	flags.BoolVar(&o.policyCounters, "policy-counters", false, "count the packets of each policy, for the metrics")
	flags.Var(limitValue{&o.limits}, "limit", "changes the bound with this name on the cost of a policy, a namespace or a pod; may be repeated")
	o.common.addFlags(flags)
}

// load reads the files that the flags name.
func (o *tableOptions) load(node string) (cache.Options, error) {
	options := cache.Options{
		Node: node, NetworkPlugins: o.networkPlugins, UnenforceableRuntimes: o.unenforceable, PolicyCounters: o.policyCounters, Limits: o.limits,
	}
	if err := cache.CheckRuntimes(o.unenforceable); err != nil {
		return options, usageError{fmt.Errorf("--unenforceable-runtimes: %w", err)}
	}
	switch o.established {
	case keepEstablished, "":
	case revokeEstablished:
		options.RevokeEstablished = true
	default:
		return options, usageError{fmt.Errorf("--established: %q is neither %s nor %s", o.established, keepEstablished, revokeEstablished)}
	}
	return options, o.common.load(&options)
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// asUsage makes the errors of a check of arguments usage errors.
func asUsage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}
