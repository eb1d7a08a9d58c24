package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// traceOptions are the flags of trace.
type traceOptions struct {
	runtime    runtimeOptions
	output     outputOptions
	pod, netns string
	net        string
	from, to   string
	protocol   string
	port       uint16
	duration   time.Duration
	limit      uint32
}

// The bounds of a trace.
const (
	maxTraceDuration = time.Hour
	maxTraceLimit    = 10_000
)

func newTrace() *cobra.Command {
	var o traceOptions
	cmd := &cobra.Command{
		Use:   "trace --pod NAMESPACE/NAME [--from IP|CIDR] [--to IP|CIDR] [--protocol P] [--port N] [--interface IF]",
		Short: "Shows which policy and rule decides on a pod's packets as they come and go",
		Long: `Shows real packets of a pod on this node, each with the rules that it matched on its way and the policy and rule that
decided. What the flags say is what the packets must be that are shown; answers to them are other packets, with source
and destination exchanged.

It has the kernel mark the packets by rules in a table of its own in the pod, inet ` + engine.TraceTableName + `,
which change nothing for them and are gone when it ends, also when it is killed. "nft monitor trace" in the pod's network
namespace shows the same packets meanwhile.`,
		Example: `  ` + program + ` trace --pod shop/web --port 80
  ` + program + ` trace --pod shop/web --from 10.10.0.0/24 --duration 5m --output json`,
		Args: asUsage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	o.runtime.addFlags(flags)
	o.output.addFlags(flags, "text", "json")
	flags.StringVar(&o.pod, "pod", "", "the pod, as `NAMESPACE/NAME`")
	flags.StringVar(&o.netns, "netns", "", "`path` of its network namespace; the container runtime is not asked then")
	o.addPacketFlags(flags)
	return cmd
}

// addPacketFlags adds those that say which packets, and how long.
func (o *traceOptions) addPacketFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.net, "interface", "", "only packets of this interface of the pod")
	flags.StringVar(&o.from, "from", "", "only packets with this source, an `IP or CIDR`")
	flags.StringVar(&o.to, "to", "", "only packets with this destination, an `IP or CIDR`")
	flags.StringVar(&o.protocol, "protocol", "", "only packets of this protocol: tcp, udp, sctp, icmp, icmpv6 or a number")
	flags.Uint16Var(&o.port, "port", 0, "only packets to this port")
	flags.DurationVar(&o.duration, "duration", time.Minute, "how long, up to 1h")
	flags.Uint32Var(&o.limit, "limit", 20, "packets a second that are shown at most")
}

func (o *traceOptions) run(ctx context.Context, out, notes io.Writer) error {
	filter, err := o.filter()
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
	show := func(a traceAnswer) error { return o.print(out, a) }
	return o.trace(ctx, name, path, filter, show, notes)
}

// trace ends without an error when the time is over or somebody ends it.
func (o *traceOptions) trace(
	ctx context.Context, name, path string, filter engine.TraceFilter, show func(traceAnswer) error, notes io.Writer,
) (err error) {
	tracer, err := engine.OpenTracer(path)
	if err != nil {
		return traceCause(err)
	}
	defer func() { err = errors.Join(err, tracer.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, o.duration)
	defer cancel()
	endsWithProcess, err := tracer.Start(filter, time.Now().Add(o.duration))
	if err != nil {
		return traceCause(err)
	}
	note := fmt.Sprintf("tracing %s for %s, at most %d packets a second\n", name, o.duration, o.limit)
	if !tracer.Isolated() {
		note += fmt.Sprintf("note: there is no table inet %s: no policy isolates an interface of the pod\n", engine.TableName)
	}
	if !endsWithProcess {
		note += "note: this kernel (before 5.12) leaves the table behind if this process is killed; it marks nothing after that time\n"
	}
	if _, err := io.WriteString(notes, note); err != nil {
		return err
	}
	shown := 0
	lost, err := followTrace(ctx, tracer, func(p engine.TracedPacket) error {
		shown++
		return show(newTraceAnswer(name, p))
	})
	if err != nil {
		return err
	}
	note = fmt.Sprintf("%d packets\n", shown)
	if lost > 0 {
		note = fmt.Sprintf("%d packets; events were lost %d times: a lower --limit or narrower flags help\n", shown, lost)
	}
	_, err = io.WriteString(notes, note)
	return err
}

// followTrace shows packets until the context ends, and says how often some were lost.
func followTrace(ctx context.Context, tracer *engine.Tracer, show func(engine.TracedPacket) error) (lost int, err error) {
	for {
		p, err := tracer.Next(ctx)
		if ctx.Err() != nil {
			break
		}
		if err == nil {
			err = show(p)
		}
		if err != nil {
			return 0, err
		}
	}
	for {
		p, more := tracer.Rest()
		if !more {
			return tracer.Lost(), nil
		}
		if err := show(p); err != nil {
			return 0, err
		}
	}
}

// namespace finds the pod's network namespace.
func (o *traceOptions) namespace(ctx context.Context) (name, path string, err error) {
	if o.netns != "" {
		if o.pod == "" {
			return o.netns, o.netns, nil
		}
		return o.pod, o.netns, nil
	}
	pod, err := parsePodKey(o.pod)
	if err != nil {
		return "", "", err
	}
	sandboxes, err := informers.ListSandboxes(ctx, o.runtime.endpoint, o.runtime.hostPrefix)
	if err != nil {
		return "", "", fmt.Errorf("list the pods of this node: %w (--netns names a network namespace without a runtime)", err)
	}
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

// filter reads the flags.
func (o *traceOptions) filter() (engine.TraceFilter, error) {
	f := engine.TraceFilter{Interface: o.net, Port: o.port, Rate: o.limit}
	if o.duration <= 0 || o.duration > maxTraceDuration {
		return f, fmt.Errorf("--duration %s: must be up to %s", o.duration, maxTraceDuration)
	}
	if o.limit == 0 || o.limit > maxTraceLimit {
		return f, fmt.Errorf("--limit %d: must be 1 to %d", o.limit, maxTraceLimit)
	}
	if len(o.net) >= unix.IFNAMSIZ {
		return f, fmt.Errorf("--interface %q: is longer than a name can be", o.net)
	}
	var err error
	if f.From, err = parseTracePrefix("from", o.from); err != nil {
		return f, err
	}
	if f.To, err = parseTracePrefix("to", o.to); err != nil {
		return f, err
	}
	if f.From.IsValid() && f.To.IsValid() && f.From.Addr().Is4() != f.To.Addr().Is4() {
		return f, fmt.Errorf("no packet is both from %s and to %s", f.From, f.To)
	}
	if o.protocol == "" {
		return f, nil
	}
	if f.Protocol, err = parseProtocol(o.protocol); err != nil {
		return f, err
	}
	switch f.Protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP:
	default:
		if o.port != 0 {
			return f, fmt.Errorf("--port: %s has no ports", o.protocol)
		}
	}
	return f, nil
}

// parseTracePrefix reads an address or a prefix; one that is not given is invalid.
func parseTracePrefix(flag, text string) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, nil
	}
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil || prefix.Addr().Is4In6() {
		return prefix, fmt.Errorf("--%s %q: must be an IP or a CIDR", flag, text)
	}
	return prefix.Masked(), nil
}

// traceCause says what a refusal means.
func traceCause(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: it takes root, or CAP_SYS_ADMIN and CAP_NET_ADMIN", err)
	}
	return err
}
