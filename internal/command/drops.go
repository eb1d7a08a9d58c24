package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/agent"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/drops"
)

// dropsOptions are the flags of drops.
type dropsOptions struct {
	address   string // of the health listener
	pod       string // NAME, or NAMESPACE/NAME
	namespace string
	output    outputOptions
}

// newDrops returns the command drops.
func newDrops() *cobra.Command {
	var o dropsOptions
	cmd := &cobra.Command{
		Use:   "drops [--namespace NAMESPACE] [--pod NAMESPACE/NAME]",
		Short: "Follows the packets that policies drop on this node",
		Long: `Follows the packets that policies drop on this node, each with the pod, the interface and the policies that isolate it, until the
command is interrupted. It asks the agent of the node.

The agent reports the packets of pods with the annotation ` + cache.DropLogAnnotation + `: "true", on the pod or on its namespace, or
of all pods with --drop-log=all; and packets that policies in audit mode would drop. The kernel reports up to five packets a second for
each interface and direction, so the metric multi_networkpolicy_pod_dropped_packets_total counts more.`,
		Example: Program{}.examples("drops", "drops --pod shop/web", "drops --namespace shop --output json"),
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	o.output.addFlags(cmd, "text", "json")
	flags.StringVar(&o.address, "address", agent.DefaultHealthAddress, "`address` and port of the agent's --health-bind-address")
	flags.StringVar(&o.pod, "pod", "", "only packets of this pod, as `NAMESPACE/NAME`")
	flags.StringVarP(&o.namespace, "namespace", "n", "", "only packets of pods of this namespace")
	return cmd
}

// run prints packets until a signal ends the context.
func (o *dropsOptions) run(ctx context.Context, out, notes io.Writer) error {
	if err := o.output.check(); err != nil {
		return err
	}
	filter := drops.Filter{Namespace: o.namespace}
	if o.pod != "" {
		namespace, name, ok := strings.Cut(o.pod, "/")
		if !ok || namespace == "" || name == "" {
			return usageError{fmt.Errorf("--pod: %q is not NAMESPACE/NAME", o.pod)}
		}
		if o.namespace != "" && o.namespace != namespace {
			return usageError{errors.New("--pod and --namespace name different namespaces")}
		}
		filter = drops.Filter{Namespace: namespace, Pod: name}
	}
	show := func(d drops.Drop) error { return d.Print(out, o.output.format == "json") }
	lost := func(n int) error {
		_, err := fmt.Fprintf(notes, "%d packets are missing here: this command was too slow\n", n)
		return err
	}
	if err := drops.Follow(ctx, http.DefaultClient, o.address, filter, show, lost); err != nil {
		return fmt.Errorf("follow the agent of this node at %s: %w", o.address, err)
	}
	return nil
}
