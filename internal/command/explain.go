package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/explain"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// explainOptions are the flags of explain.
type explainOptions struct {
	world         worldOptions // source of the objects
	output        outputOptions
	packet        packetOptions
	pod, from, to string // as given: NAMESPACE/NAME, or IP for from and to
	iface         string
	network       string // as given: NAMESPACE/NAME or NAME
}

// newExplain returns the command explain.
// The subcommands diff and matrix are part of it.
func newExplain(p Program) *cobra.Command {
	o := explainOptions{world: worldOptions{program: p}}
	cmd := &cobra.Command{
		Use:   "explain [-f FILE|DIR|URL|-]... --from POD|IP --to POD|IP [--port PORT]",
		Short: "Says whether a packet passes, and which policy and rule decides",
		Long: `Says whether the first packet of a connection passes, which policy and rule decides, and why the other rules do not match.
For two pods it judges both ends, the Egress policies of the sender and the Ingress policies of the receiver, on each network
that both pods are on. For a pod and an address it judges the end of the pod.

It reads manifests, or without -f and -k the objects of an API server. It does not explain replies: they pass with their
connection. The pods can be on any node.

The exit code is 0 for any answer, 1 for an error, and 2 for an invalid command line.`,
		Example: p.examples(
			"explain -f cluster/ --from shop/frontend --to shop/web --port http",
			"explain -n shop --from frontend --to ops/monitoring --port udp/53 -o json",
			"explain -f cluster/ --pod shop/web --from 10.10.0.11 --port 80",
			"explain -f - --to shop/web --from fd00:10::13 --protocol icmpv6 < cluster.yaml",
		),
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.packet.isICMPTypeSet = cmd.Flags().Changed("icmp-type")
			return o.run(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	o.world.addFlags(flags)
	o.output.addFlags(cmd, "text", "json", "yaml")
	flags.StringVar(&o.pod, "pod", "", "the pod, as `NAMESPACE/NAME` or NAME, with an address in --from or --to")
	flags.StringVar(&o.iface, "interface", "", "interface of the pod, for an address; without it, all isolated interfaces")
	flags.StringVar(&o.network, "network", "", "network, for two pods, as `NAMESPACE/NAME`; without it, all shared networks")
	flags.StringVar(&o.from, "from", "", "sender: `POD or IP`")
	flags.StringVar(&o.to, "to", "", "receiver: `POD or IP`")
	o.packet.addFlags(flags)
	o.world.complete(cmd, "pod", "from", "to")
	completeWords(cmd, "protocol", "tcp", "udp", "sctp", "icmp", "icmpv6")
	cmd.AddCommand(newExplainDiff(p), newExplainMatrix(p))
	return cmd
}

// run loads the objects and prints the explanation. It writes problems of the pods and of networks as warnings; the explanation
// has the problems of policies.
func (o *explainOptions) run(ctx context.Context, stdin io.Reader, out, warnings io.Writer) error {
	// All errors of the command line come before the objects are read, which may take long.
	namespace, err := o.world.namespace()
	if err != nil {
		return err
	}
	q, err := ask(o.pod, o.from, o.to, namespace)
	if err != nil {
		return err
	}
	p, err := o.packet.read()
	if err == nil && q.query.Remote.IsValid() {
		err = p.fits(q.query.Remote)
	}
	if err != nil {
		return usageError{err}
	}
	isTwoPods := !q.query.Remote.IsValid()
	switch {
	case isTwoPods && o.iface != "":
		return usageError{errors.New("--interface is for a pod and an address; for two pods, use --network")}
	case !isTwoPods && o.network != "":
		return usageError{errors.New("--network is for two pods; for a pod and an address, use --interface")}
	}
	if err := o.output.check(); err != nil {
		return err
	}
	w, err := o.world.load(ctx, stdin, warnings)
	if err != nil {
		return err
	}
	if isTwoPods {
		return o.reach(w, q, p, namespace, out, warnings)
	}
	return o.explain(w, q.query, p, out, warnings)
}

// explain prints the explanation of a pod's packet from or to an address.
func (o *explainOptions) explain(w *world, q explain.Query, p packet, out, warnings io.Writer) error {
	if err := w.hasAll(warnings, q.Pod); err != nil {
		return err
	}
	if p.portName != "" && q.Direction == engine.Egress {
		return usageError{fmt.Errorf("--port %s: the name of a port needs a pod in --to: give a number", p.portName)}
	}
	var err error
	if q.Port, err = p.resolve(w.cache, q.Pod); err != nil {
		return err
	}
	q.Interface, q.Protocol, q.ICMPType = o.iface, p.protocol, p.icmpType
	e, err := explain.Explain(w.cache, q)
	if err != nil {
		return err
	}
	return o.output.write(out, e, func(out io.Writer) error { return printExplanation(out, e) })
}

// hasAll returns an error if a pod does not exist or policies cannot apply to it. It writes the problems of the pods and of all
// networks as warnings, since networks can change the answer for every pod.
func (w *world) hasAll(warnings io.Writer, pods ...cache.Key) error {
	for _, key := range pods {
		// A pod that does not exist is an error, and not a pod that no policy isolates.
		if err := w.has(key); err != nil {
			return err
		}
	}
	return w.warn(warnings, func(kind string, key cache.Key) bool {
		return kind == informers.KindNAD || kind == informers.KindPod && slices.Contains(pods, key)
	})
}
