package command

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/trace"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers/sandbox"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/tracing"
)

// traceOptions are the flags of trace.
// netns needs no container runtime. With both, pod is only the name in the output.
type traceOptions struct {
	tracing.Options // the filter, and the length of the trace
	runtime         runtimeOptions
	output          outputOptions
	pod, netns      string // as given: NAMESPACE/NAME, and a path instead of the runtime's
}

// newTrace returns the command trace.
// Filter and duration are flags of the package tracing, which annotations of pods share.
func newTrace() *cobra.Command {
	var o traceOptions
	cmd := &cobra.Command{
		Use:   "trace --pod NAMESPACE/NAME [--from IP|CIDR] [--to IP|CIDR] [--protocol P] [--port N] [--interface IF]",
		Short: "Shows which policy and rule decides on a pod's packets as they come and go",
		Long: `Shows real packets of a pod on this node, each with the rules that it matched and the policy and rule that decided. The
flags select the packets. Replies to these packets have source and destination exchanged, so the same flags do not select
them.

The kernel marks the packets by rules in a separate table in the pod, inet ` + trace.TableName + `. These
rules do not change the verdict, and the kernel removes them when the command ends, even if it is killed. Meanwhile
"nft monitor trace" in the pod's network namespace shows the same packets.`,
		Example: Program{}.examples(
			"trace --pod shop/web --port 80",
			"trace --pod shop/web --from 10.10.0.0/24 --duration 5m --output json",
		),
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	o.runtime.addFlags(flags)
	o.output.addFlags(cmd, "text", "json")
	flags.StringVar(&o.pod, "pod", "", "the pod, as `NAMESPACE/NAME`")
	flags.StringVar(&o.netns, "netns", "", "`path` of the pod's network namespace, instead of the container runtime's")
	o.AddFlags(flags)
	return cmd
}

// run traces the pod until the time is over or a signal ends the context.
// notes gets messages that are no packets, such as the start of the trace.
func (o *traceOptions) run(ctx context.Context, out, notes io.Writer) error {
	// Errors of the command line come before the runtime is asked.
	// The filter is complete before the pod is looked up.
	filter, err := o.Filter()
	if err != nil {
		return usageError{err}
	}
	if err := o.output.check(); err != nil {
		return err
	}
	name, path, err := o.namespace(ctx)
	if err != nil {
		return err
	}
	// Each packet is printed as soon as it is complete.
	show := func(a tracing.Answer) error { return a.Print(out, o.output.format == "json") }
	return o.Trace(ctx, name, path, filter, show, notes)
}

// namespace returns the name for the output and the path of the pod's network namespace.
// An error says that the pod is not on this node or that its path cannot be told.
func (o *traceOptions) namespace(ctx context.Context) (name, path string, err error) {
	if o.netns != "" {
		if o.pod == "" {
			return o.netns, o.netns, nil
		}
		return o.pod, o.netns, nil
	}
	pod, err := parsePodKey("pod", o.pod, metav1.NamespaceDefault)
	if err != nil {
		return "", "", err
	}
	sandboxes, err := sandbox.List(ctx, o.runtime.endpoint, o.runtime.hostPrefix)
	if err != nil {
		return "", "", fmt.Errorf("list the pods of this node: %w (--netns names a network namespace without a runtime)", err)
	}
	// The runtime may list several sandboxes of a pod. The path is then ambiguous, and --netns must name it.
	for _, s := range sandboxes {
		switch {
		case s.Pod != pod:
		case s.Err != nil:
			return "", "", fmt.Errorf("network namespace of %s: %w", pod, s.Err)
		case path != "":
			return "", "", fmt.Errorf("%s has several sandboxes; --netns says which: %s, %s", pod, path, s.NetNS)
		default:
			path = s.NetNS
		}
	}
	if path == "" {
		return "", "", fmt.Errorf("no pod %s with a network of its own runs on this node", pod)
	}
	return pod.String(), path, nil
}
