package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/agents"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/drops"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/drops/remote"
)

// dropsOptions are the flags of drops.
type dropsOptions struct {
	client  clientOptions // its namespace limits the packets
	agents  agentsOptions
	address string // of the health listener of this node's agent
	pod     string // NAMESPACE/NAME, or NAME
	node    string
	output  outputOptions
	remote  bool // ask agents of the cluster, rather than the agent of this node
}

// newDrops returns the command drops. The plugin asks agents of the cluster, and the agent's program that of its node, unless a flag
// about the cluster is given.
func newDrops(p Program) *cobra.Command {
	var o dropsOptions
	cmd := &cobra.Command{
		Use:   "drops [--namespace NAMESPACE] [--pod NAMESPACE/NAME] [--node NODE]",
		Short: "Follows the packets that policies drop, or would drop in audit mode",
		Long: `Follows the packets that policies drop, each with the pod, the interface and the policies that isolate it, until the command is
interrupted.

` + dropsSource(p) + `
with port-forward: the agent of a node with --node, the agent of the pod's node with --pod, the agents of all nodes with pods of the
namespace with --namespace, and else the agents of all nodes, up to ` + fmt.Sprint(remote.MaxNodes) + `. A line on stderr names an agent that goes away, and the command
tries again. Your user needs the right to list pods, in the namespace of the agents and in the namespace of --pod or --namespace, and the
verbs get and create for pods/portforward in the namespace of the agents.

An agent reports the packets of pods with the annotation ` + cache.DropLogAnnotation + `: "true", on the pod or on its namespace, or
of all pods with --drop-log=all; and packets that policies in audit mode would drop. The kernel reports up to five packets a second for
each interface and direction, so the metric multi_networkpolicy_pod_dropped_packets_total counts more.`,
		Example: p.examples("drops", "drops --pod shop/web", "drops --namespace shop --output json", "drops --node node-1"),
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.remote = p.IsPlugin
			for _, flag := range []string{"kubeconfig", "context", "node"} {
				o.remote = o.remote || cmd.Flags().Changed(flag)
			}
			if o.remote && cmd.Flags().Changed("address") {
				return usageError{errors.New("--address is for the agent of this node, without --kubeconfig, --context and --node")}
			}
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	o.client.addClusterFlags(flags)
	o.agents.addFlags(flags)
	o.output.addFlags(cmd, "text", "json")
	if !p.IsPlugin {
		flags.StringVar(&o.address, "address", defaultHealthAddress, "`address` and port of the --health-bind-address of this node's agent")
	}
	flags.StringVar(&o.pod, "pod", "", "only packets of this pod, as `NAMESPACE/NAME`")
	flags.StringVarP(&o.client.namespace, "namespace", "n", "", "only packets of pods of this namespace")
	flags.StringVar(&o.node, "node", "", "only packets on this node of the cluster")
	o.client.complete(cmd)
	return cmd
}

// dropsSource returns the start of a sentence about the agents that the program asks.
func dropsSource(p Program) string {
	if p.IsPlugin {
		return "It asks agents of the cluster in your kubeconfig"
	}
	return "It asks the agent of this node. With --kubeconfig, --context or --node it asks agents of the cluster, from any machine,"
}

// run prints packets until a signal ends the context.
func (o *dropsOptions) run(ctx context.Context, out, notes io.Writer) error {
	if err := o.output.check(); err != nil {
		return err
	}
	filter := drops.Filter{Namespace: o.client.namespace}
	if o.pod != "" {
		key, err := parsePodKey("pod", o.pod, o.client.namespace)
		if err != nil {
			return err
		}
		if o.client.namespace != "" && o.client.namespace != key.Namespace {
			return usageError{errors.New("--pod and --namespace name different namespaces")}
		}
		filter = drops.Filter{Namespace: key.Namespace, Pod: key.Name}
	}
	show := func(d drops.Drop) error { return d.Print(out, o.output.format == "json") }
	if o.remote {
		return o.followCluster(ctx, filter, show, func(text string) { fmt.Fprintln(notes, text) }) //nolint:errcheck // a note
	}
	lost := func(n int) error {
		_, err := fmt.Fprintf(notes, "%d packets are missing here: this command was too slow\n", n)
		return err
	}
	err := drops.Follow(ctx, http.DefaultTransport, o.address, filter, drops.Handler{Show: show, Lost: lost})
	if err != nil {
		return fmt.Errorf("follow the agent of this node at %s: %w", o.address, err)
	}
	return nil
}

// followCluster follows agents of the cluster.
func (o *dropsOptions) followCluster(ctx context.Context, filter drops.Filter, show func(drops.Drop) error, note func(string)) error {
	config, err := o.client.restConfig()
	if err != nil {
		return err
	}
	client, err := agents.NewClient(config, o.agents.namespace, o.agents.port)
	if err != nil {
		return err
	}
	return remote.Follow(ctx, remote.Question{Agents: client, Node: o.node, Filter: filter}, show, note)
}
