//go:build linux

package tracing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/trace"
)

// Limits of a trace: longest duration, and most packets a second.
const (
	maxDuration = time.Hour
	maxLimit    = 10_000
)

// Options select the packets of a trace, and limit its rate and its duration.
type Options struct {
	Interface string
	From, To  string // an IP or CIDR as text; empty: any address
	Protocol  string // empty: any protocol
	Port      uint16 // destination port; 0: any port
	Duration  time.Duration
	Limit     uint32 // packets a second
}

// AddFlags adds a flag for each option.
func (o *Options) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.Interface, "interface", "", "only packets of this interface of the pod")
	flags.StringVar(&o.From, "from", "", "only packets with this source, an `IP or CIDR`")
	flags.StringVar(&o.To, "to", "", "only packets with this destination, an `IP or CIDR`")
	flags.StringVar(&o.Protocol, "protocol", "", "only packets of this protocol: tcp, udp, sctp, icmp, icmpv6 or a number")
	flags.Uint16Var(&o.Port, "port", 0, "only packets to this port")
	flags.DurationVar(&o.Duration, "duration", time.Minute, "length of the trace, up to 1h")
	flags.Uint32Var(&o.Limit, "limit", 20, "most packets a second")
}

// Parse reads options from a text with flags, such as "--port 80 --duration 2m". It is the value of the annotation for traces.
func Parse(text string) (*Options, error) {
	var o Options
	// pflag prints usage and errors by itself otherwise, and the text comes from an annotation.
	flags := pflag.NewFlagSet("trace", pflag.ContinueOnError)
	flags.Usage = func() {}
	o.AddFlags(flags)
	if err := flags.Parse(strings.Fields(text)); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("%q is no flag", flags.Arg(0))
	}
	return &o, nil
}

// Trace calls show for packets of a pod. path is the path of the pod's network namespace. It returns nil when the duration is
// over or the context ends. It writes notes for the user to notes, such as the number of packets.
func (o *Options) Trace(ctx context.Context, pod, path string, filter trace.Filter, show func(Answer) error, notes io.Writer) (err error) {
	// Close removes the table that marks packets, so it must run even after an error.
	tracer, err := trace.Open(path)
	if err != nil {
		return cause(err)
	}
	defer func() { err = errors.Join(err, tracer.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, o.Duration)
	defer cancel()
	// The table has a deadline, so that a kernel without owned tables stops marking by itself.
	endsWithProcess, err := tracer.Start(filter, time.Now().Add(o.Duration))
	if err != nil {
		return cause(err)
	}
	note := fmt.Sprintf("tracing %s for %s, at most %d packets a second\n", pod, o.Duration, o.Limit)
	// Without the agent's table the trace works, but has nothing to explain.
	if !tracer.IsIsolated() {
		note += fmt.Sprintf("note: there is no table inet %s: no policy isolates an interface of the pod\n", engine.TableName)
	}
	if !endsWithProcess {
		note += "note: this kernel (before 5.12) leaves the table behind if this process is killed; it marks nothing after that time\n"
	}
	if _, err := io.WriteString(notes, note); err != nil {
		return err
	}
	shown := 0
	lost, err := follow(ctx, tracer, func(p trace.Packet) error {
		shown++
		return show(newAnswer(pod, p))
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

// follow calls show for packets until the context ends, and then for packets that are not complete yet. It returns the number of
// times that events were lost.
func follow(ctx context.Context, tracer *trace.Tracer, show func(trace.Packet) error) (lost int, err error) {
	for {
		p, err := tracer.Next(ctx)
		// The end of the time is the normal end, and no error.
		if ctx.Err() != nil {
			// The error of Next is only the end of the context then.
			break
		}
		if err == nil {
			err = show(p)
		}
		if err != nil {
			return 0, err
		}
	}
	// The events of these packets may be incomplete, which is better than to leave the packets out.
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

// Filter checks the options and returns the filter of the packets.
func (o *Options) Filter() (trace.Filter, error) {
	// The limits of the command; annotations have stricter limits.
	f := trace.Filter{Interface: o.Interface, Port: o.Port, Rate: o.Limit}
	// The zero duration of an unset field is not a duration without limit.
	if o.Duration <= 0 || o.Duration > maxDuration {
		return f, fmt.Errorf("--duration %s: must be up to %s", o.Duration, maxDuration)
	}
	if o.Limit == 0 || o.Limit > maxLimit {
		return f, fmt.Errorf("--limit %d: must be 1 to %d", o.Limit, maxLimit)
	}
	// The kernel's names have at most IFNAMSIZ-1 bytes.
	if len(o.Interface) >= unix.IFNAMSIZ {
		return f, fmt.Errorf("--interface %q: is longer than a name can be", o.Interface)
	}
	var err error
	if f.From, err = parsePrefix("from", o.From); err != nil {
		return f, err
	}
	if f.To, err = parsePrefix("to", o.To); err != nil {
		return f, err
	}
	if f.From.IsValid() && f.To.IsValid() && f.From.Addr().Is4() != f.To.Addr().Is4() {
		return f, fmt.Errorf("no packet is both from %s and to %s", f.From, f.To)
	}
	if o.Protocol == "" {
		return f, nil
	}
	if f.Protocol, err = ParseProtocol(o.Protocol); err != nil {
		return f, err
	}
	switch f.Protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP:
	default:
		if o.Port != 0 {
			return f, fmt.Errorf("--port: %s has no ports", o.Protocol)
		}
	}
	return f, nil
}

// parsePrefix reads an address or a prefix. For an empty text it returns an invalid prefix, which selects any address.
func parsePrefix(flag, text string) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, nil
	}
	// A zone is a name of an interface of this machine, which means nothing to the pod.
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

// cause adds the missing privileges to EPERM.
func cause(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: it takes root, or CAP_SYS_ADMIN and CAP_NET_ADMIN", err)
	}
	return err
}
