package command

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// This file has the flags that several commands share.

// Default addresses of the listeners of the agent. The agent is on the host's network, so a listener on more than loopback serves
// everybody who can reach the node.
const (
	defaultMetricsAddress = "127.0.0.1:10349"
	defaultHealthAddress  = "127.0.0.1:10356"
)

// runtimeOptions are the flags for access to the container runtime, and to the host's files that it names. endpoint is
// the socket of the runtime, hostPrefix the mount point of the host's root directory.
type runtimeOptions struct{ endpoint, hostPrefix string }

// addFlags adds the flags of the container runtime.
func (o *runtimeOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.endpoint, "container-runtime-endpoint", "",
		"socket of the container runtime; without it, the first well-known socket that answers")
	flags.StringVar(&o.hostPrefix, "host-prefix", "", "directory where the host's root directory is mounted")
}

// Values of --established.
// keep lets established connections pass; revoke judges each of their packets again.
const (
	keepEstablished   = "keep"
	revokeEstablished = "revoke"
)

// tableOptions are the flags that affect the tables of all pods.
// They decide what the tables have, so explain, render and the agent read the same flags and come to the same rules.
type tableOptions struct {
	networkPlugins []string      // CNI types of the networks that policies isolate
	enforcedBy     []string      // TYPE=NAME: another implementation enforces policies for networks of this CNI type
	unenforceable  []string      // shell patterns of RuntimeClasses and handlers whose pods no rules reach
	established    string        // keep or revoke
	policyCounters bool          // a counter for each policy
	audit          bool          // policies without an annotation are in audit mode
	dropLog        string        // whose dropped packets are reported, see cache.DropLog
	limits         policy.Limits // limits by name, see policy.Limits
	common         commonOptions
}

// addFlags sets the defaults, and adds the flags with them.
func (o *tableOptions) addFlags(flags *pflag.FlagSet) {
	o.networkPlugins, o.limits = cache.DefaultNetworkPlugins(), policy.DefaultLimits()
	addList(flags, &o.networkPlugins, "network-plugins", "",
		"plugin types of the networks that policies isolate")
	o.enforcedBy = cache.DefaultEnforcedBy()
	addListOrNone(flags, &o.enforcedBy, "enforced-by",
		"plugin types of the networks for which another implementation enforces policies, and its name, as TYPE=NAME")
	o.unenforceable = cache.DefaultUnenforceableRuntimes()
	addListOrNone(flags, &o.unenforceable, "unenforceable-runtimes",
		"RuntimeClasses and handlers, as shell patterns, whose pods have a network stack of their own, which no rules reach")
	flags.StringVar(&o.established, "established", keepEstablished,
		"connections that policies no longer allow: `keep|revoke`; with revoke, rules see every packet")
	flags.BoolVar(&o.policyCounters, "policy-counters", false, "count the packets of each policy, for the metrics")
	flags.BoolVar(&o.audit, "audit", false, "audit mode for all policies without the annotation "+policy.ModeAnnotation+
		": packets that they would drop pass, and are counted and reported")
	flags.StringVar(&o.dropLog, "drop-log", string(cache.DropLogAnnotated), "pods whose dropped packets are reported: `none|annotated|all`; "+
		"annotated: pods and namespaces with the annotation "+cache.DropLogAnnotation)
	flags.Var(limitValue{&o.limits}, "limit", "limit on the cost of a policy, a namespace, a pod or the node, by name; may be repeated")
	o.common.addFlags(flags)
}

// load makes the options of a cache from the flags and from the files that they name. node is empty for commands that treat pods
// of all nodes as local.
// An error of the command line is a usage error; an error in a file is not.
func (o *tableOptions) load(node string) (cache.Options, error) {
	options := cache.Options{
		Node: node, NetworkPlugins: o.networkPlugins, UnenforceableRuntimes: o.unenforceable, PolicyCounters: o.policyCounters, Limits: o.limits,
		Audit: o.audit, DropLog: cache.DropLog(o.dropLog),
	}
	switch options.DropLog {
	case cache.DropLogNone, cache.DropLogAnnotated, cache.DropLogAll, "": // the last: a command without this flag
	default:
		return options, usageError{fmt.Errorf("--drop-log: %q is none of none, annotated and all", o.dropLog)}
	}
	if err := cache.CheckRuntimes(o.unenforceable); err != nil {
		return options, usageError{fmt.Errorf("--unenforceable-runtimes: %w", err)}
	}
	if err := setEnforcedBy(&options, o.enforcedBy); err != nil {
		return options, usageError{fmt.Errorf("--enforced-by: %w", err)}
	}
	switch o.established {
	case keepEstablished, "": // an option of a command without this flag
	case revokeEstablished:
		options.RevokeEstablished = true
	default:
		return options, usageError{fmt.Errorf("--established: %q is neither %s nor %s", o.established, keepEstablished, revokeEstablished)}
	}
	return options, o.common.load(&options)
}

// setEnforcedBy reads the values of --enforced-by. A type in --network-plugins is left out: this agent enforces its policies.
func setEnforcedBy(options *cache.Options, values []string) error {
	options.EnforcedBy = map[string]string{}
	for _, value := range values {
		pluginType, name, _ := strings.Cut(value, "=")
		if pluginType == "" || name == "" {
			return fmt.Errorf("%q is not TYPE=NAME", value)
		}
		if !slices.Contains(options.NetworkPlugins, pluginType) {
			options.EnforcedBy[pluginType] = name
		}
	}
	return nil
}

// otherPlugins are plugin types that are not in the default of --network-plugins and yet no typing errors.
var otherPlugins = []string{
	"accelerated-bridge", "amazon", "aws-cni", "azure-vnet", "calico", "cilium-cni", "dummy", "flannel", "ib-sriov", "kube-ovn",
	"macvtap", "ovn-k8s-cni-overlay", "ovs", "ptp", "rdma", "sriov-cni", "tc-redirect-tap", "userspace", "vhostuser",
}

// warn writes the warnings about the values of the flags for a command.
func (o *tableOptions) warn(to io.Writer) error {
	for _, text := range o.warnings() {
		if _, err := fmt.Fprintf(to, "warning: %s\n", text); err != nil {
			return err
		}
	}
	return nil
}

// warnings returns the warnings about the values of the flags: a misspelled plugin type leaves networks open.
func (o *tableOptions) warnings() []string {
	known := append(cache.DefaultNetworkPlugins(), otherPlugins...)
	var texts []string
	for _, p := range o.networkPlugins {
		if !slices.Contains(known, p) {
			texts = append(texts, fmt.Sprintf("--network-plugins: unknown plugin type %q%s", p, didYouMean(p, known)))
		}
	}
	return texts
}
