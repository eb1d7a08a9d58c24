package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/explain"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/tracing"
)

// explainOptions are the flags of explain.
type explainOptions struct {
	world     worldOptions // source of the objects
	output    outputOptions
	pod, net  string     // as given: NAMESPACE/NAME, and the name of an interface
	from, to  netip.Addr // the other end of the packet; one of them is set
	protocol  string     // name or number
	port      uint16
	icmpType  uint8
	isPort    bool // --port was given
	isICMPSet bool // --icmp-type was given
}

// newExplain returns the command explain.
// The subcommand diff is part of it.
func newExplain() *cobra.Command {
	var o explainOptions
	cmd := &cobra.Command{
		Use:   "explain -f FILE|DIR... --pod NAMESPACE/NAME (--from|--to) IP [--protocol P] [--port N]",
		Short: "Says whether a pod's packet passes, and which policy and rule decides",
		Long: `Says whether the first packet of a connection passes, which policy and rule decides, and why the other rules do not match.
It reads manifests, or without -f the objects of an API server. It does not explain replies: they pass with their
connection. The pod can be on any node.

The exit code is 0 for any answer, 1 for an error, and 2 for an invalid command line.`,
		Example: `  ` + program + ` explain -f cluster/ --pod shop/web --from 10.10.0.11 --port 80
  ` + program + ` explain --kubeconfig ~/.kube/config --pod shop/web --to fd00:10::13 --protocol icmpv6`,
		Args: asUsage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			// A port 0 and no port differ, and so do type 0 and no type.
			o.isPort, o.isICMPSet = cmd.Flags().Changed("port"), cmd.Flags().Changed("icmp-type")
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	o.world.addFlags(flags)
	o.output.addFlags(flags, "text", "json", "yaml")
	flags.StringVar(&o.pod, "pod", "", "the pod, as `NAMESPACE/NAME`")
	flags.StringVar(&o.net, "interface", "", "interface of the pod; without it, all isolated interfaces")
	flags.TextVar(&o.from, "from", netip.Addr{}, "`IP` that sends to the pod")
	flags.TextVar(&o.to, "to", netip.Addr{}, "`IP` that the pod sends to")
	flags.StringVar(&o.protocol, "protocol", "tcp", "tcp, udp, sctp, icmp, icmpv6 or a number")
	flags.Uint16Var(&o.port, "port", 0, "destination port of the packet")
	flags.Uint8Var(&o.icmpType, "icmp-type", 0, "type of the ICMP message; without it, echo request")
	cmd.AddCommand(newExplainDiff())
	return cmd
}

// run loads the objects and prints the explanation. It writes problems of the pod and of networks as warnings; the explanation
// has the problems of policies.
func (o *explainOptions) run(ctx context.Context, out, warnings io.Writer) error {
	// All errors of the command line come before the objects are read, which may take long.
	q, err := o.query()
	if err != nil {
		return err
	}
	if err := o.output.check(); err != nil {
		return err
	}
	w, err := o.world.load(ctx)
	if err != nil {
		return err
	}
	// A pod that does not exist is an error, and not a pod that no policy isolates.
	if err := w.has(q.Pod); err != nil {
		return err
	}
	// Networks can change the answer for every pod, so their problems are always shown.
	err = w.warn(warnings, func(kind string, key cache.Key) bool {
		return kind == informers.KindPod && key == q.Pod || kind == informers.KindNAD
	})
	if err != nil {
		return err
	}
	e, err := explain.Explain(w.cache, q)
	if err != nil {
		return err
	}
	return o.output.write(out, e, func(out io.Writer) error { return printExplanation(out, e) })
}

// query makes the query from the flags.
// Its errors are usage errors. The address of the other end is unmapped.
func (o *explainOptions) query() (explain.Query, error) {
	q := explain.Query{Interface: o.net, Port: o.port}
	var err error
	if q.Pod, err = parsePodKey(o.pod); err != nil {
		return q, err
	}
	switch {
	// Both or neither.
	case o.from.IsValid() == o.to.IsValid():
		return q, usageError{errors.New("either --from or --to must be given")}
	case o.from.IsValid():
		q.Direction, q.Remote = engine.Ingress, o.from.Unmap()
	default:
		// Unmap: ::ffff:10.0.0.1 is an address of IPv4.
		q.Direction, q.Remote = engine.Egress, o.to.Unmap()
	}
	if err := o.readProtocol(&q); err != nil {
		return q, usageError{err}
	}
	return q, nil
}

// echoRequests are the types of the echo requests of ICMP and ICMPv6, by protocol.
var echoRequests = map[uint8]uint8{unix.IPPROTO_ICMP: 8, unix.IPPROTO_ICMPV6: 128}

// readProtocol sets the protocol of the query, and checks that port, message type and family fit it.
// It needs the address in q. The caller makes its error a usage error.
func (o *explainOptions) readProtocol(q *explain.Query) error {
	var err error
	if q.Protocol, err = tracing.ParseProtocol(o.protocol); err != nil {
		return err
	}
	// An ICMP message without a type in the query is an echo request, which starts an exchange as a SYN starts a
	// connection.
	echo, isICMP := echoRequests[q.Protocol]
	switch q.Protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP:
		if !o.isPort {
			return fmt.Errorf("--port must be given for %s", o.protocol)
		}
	default:
		if o.isPort {
			return fmt.Errorf("--port: %s has no ports", o.protocol)
		}
	}
	switch {
	case o.isICMPSet && !isICMP:
		return errors.New("--icmp-type is for --protocol icmp and icmpv6")
	case isICMP && (q.Protocol == unix.IPPROTO_ICMP) != q.Remote.Is4():
		return fmt.Errorf("--protocol %s is not for %s", o.protocol, q.Remote)
	case o.isICMPSet:
		q.ICMPType = o.icmpType
	default:
		q.ICMPType = echo
	}
	return nil
}
