package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// traced is a server whose table lets the client in to TCP 80, and a client.
type traced struct {
	*testing.T
	server, client *lab.Host
}

func newTraced(t *testing.T) traced {
	t.Helper()
	l := lab.ForTest(t)
	server, e := pod(t, l, "server", netip.MustParsePrefix("10.9.0.1/24"), netip.MustParsePrefix("fd09::1/64"))
	client, err := l.Host("client", netip.MustParsePrefix("10.9.0.2/24"), netip.MustParsePrefix("fd09::2/64"))
	if err != nil {
		t.Fatal(err)
	}
	apply(t, e, isolated(parseAddrs("10.9.0.2", "fd09::2"), 80))
	for _, proto := range []lab.Protocol{lab.TCP, lab.UDP} {
		if err := server.Serve(t.Context(), proto, 80); err != nil {
			t.Fatal(err)
		}
	}
	return traced{t, server, client}
}

func (t traced) start(f TraceFilter) *Tracer {
	t.Helper()
	tracer, err := OpenTracer(t.server.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tracer.Close(); err != nil {
			t.Error(err)
		}
	})
	if f.Rate == 0 {
		f.Rate = 1000
	}
	owned, err := tracer.Start(f, time.Now().Add(time.Minute))
	if err != nil || owned != tablesHaveOwners(t) {
		t.Fatalf("the trace ends with its process: %t (%v), want %t", owned, err, tablesHaveOwners(t))
	}
	return tracer
}

// tablesHaveOwners reports whether the kernel removes the table of a trace when its process ends.
func tablesHaveOwners(t testing.TB) bool {
	t.Helper()
	return lab.KernelAtLeast(t, 5, 12)
}

// probe sends packets to the server and ignores what becomes of them.
func (t traced) probe(to string, proto lab.Protocol) {
	t.Helper()
	lab.Probe(t.Context(), t.client, netip.MustParseAddrPort(to), proto, 150*time.Millisecond)
}

// packets are those that are traced until nothing comes any more, each as a line.
func (t traced) packets(tracer *Tracer) []string {
	t.Helper()
	var lines []string
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
		p, err := tracer.Next(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, lineOf(p))
	}
}

func lineOf(p TracedPacket) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s>%s %s > %s:%d", p.In, p.Out, p.Packet.Source, p.Packet.Destination, p.Packet.DestinationPort)
	for _, s := range p.Steps {
		fmt.Fprintf(&b, " | %s %s", s.Chain, s.Verdict)
		for _, word := range append([]string{s.Target, s.Rule, s.Comment}, s.Sets...) {
			if word != "" {
				b.WriteString(" " + word)
			}
		}
	}
	return b.String()
}

const toChain = " | input goto ingress-net1 | "

// TestTrace: what is allowed and what is not, over both families, with the rule that decides; filters keep out the rest.
func TestTrace(t *testing.T) {
	w := newTraced(t)
	tracer := w.start(TraceFilter{Interface: "net1", From: netip.MustParsePrefix("10.9.0.2/32"), Port: 80})
	w.probe("10.9.0.1:80", lab.TCP)
	w.probe("10.9.0.1:80", lab.UDP)
	w.probe("10.9.0.1:81", lab.TCP)
	w.probe("[fd09::1]:80", lab.TCP)
	lines := w.packets(tracer)
	head := "net1> 10.9.0.2 > 10.9.0.1:80" + toChain
	want := []string{
		head + "ingress-net1 accept policy peers-v4 ports-80",
		head + "ingress-net1 accept ct state established,related accept",
		head + "ingress-net1 drop counter drop",
	}
	if diff := cmp.Diff(want, distinct(lines)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// distinct leaves out what was there before.
func distinct(lines []string) []string {
	var list []string
	for _, line := range lines {
		if !slices.Contains(list, line) {
			list = append(list, line)
		}
	}
	return list
}

// TestTraceFilters: the kernel's rules say what the filter does, as nft prints them.
func TestTraceFilters(t *testing.T) {
	w := newTraced(t)
	v4, v6 := netip.MustParsePrefix("10.9.0.0/16"), netip.MustParsePrefix("fd09::2/128")
	for _, tc := range []struct {
		name    string
		filter  TraceFilter
		in, out []string
	}{
		{"all", TraceFilter{}, []string{""}, []string{""}},
		{"interface", TraceFilter{Interface: "net1"}, []string{`iifname "net1" `}, []string{`oifname "net1" `}},
		{"IPv4", TraceFilter{From: v4, Protocol: 17}, []string{"ip saddr 10.9.0.0/16 meta l4proto udp "}, nil},
		{"IPv6", TraceFilter{To: v6, Protocol: 6, Port: 80}, []string{"ip6 daddr fd09::2 tcp dport 80 "}, nil},
		{"port", TraceFilter{Port: 80}, []string{"tcp dport 80 ", "udp dport 80 ", "sctp dport 80 "}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tracer := traced{t, w.server, w.client}.start(tc.filter)
			if tc.out == nil {
				tc.out = tc.in
			}
			want := "table inet multi_networkpolicy_trace {\n\tchain traced {\n\t\t" +
				"limit rate 1000/second burst 1000 packets meta nftrace set 1\n\t}\n"
			for _, hook := range []struct {
				name  string
				rules []string
			}{{"prerouting", tc.in}, {"output", tc.out}} {
				want += fmt.Sprintf("\n\tchain %s {\n\t\ttype filter hook %s priority -350; policy accept;\n", hook.name, hook.name)
				for _, r := range hook.rules {
					want += "\t\t" + r + "goto traced\n"
				}
				want += "\t}\n"
			}
			got := withoutFlags(nft(t, w.server, "", "list", "table", "inet", TraceTableName))
			got = strings.Replace(got, "{\n\n", "{\n", 1) // nft prints an empty line after flags
			if !tablesHaveOwners(t) {
				if got = withoutEnd(got); got == "" {
					t.Fatal("the mark does not end by itself")
				}
			}
			if diff := cmp.Diff(want+"}\n", got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if err := tracer.Close(); err != nil {
				t.Fatal(err)
			}
			*tracer = Tracer{}
			traced{t, w.server, w.client}.isGone()
		})
	}
}

// withoutEnd is a listing without the end of the mark, and empty if the mark has no end.
func withoutEnd(listing string) string {
	before, after, _ := strings.Cut(listing, "meta time < ")
	_, after, found := strings.Cut(after, "limit ")
	if !found {
		return ""
	}
	return before + "limit " + after
}

func (t traced) hasTable() bool {
	return strings.Contains(nft(t, t.server, "", "list", "tables"), TraceTableName)
}

// isGone waits for the end of the table: the kernel removes it soon after the socket is closed.
func (t traced) isGone() {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); t.hasTable(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the table stays")
		}
	}
	if !strings.Contains(nft(t, t.server, "", "list", "tables"), TableName) {
		t.Error("the agent's table is gone")
	}
}

// TestTraceLimit: a flood is traced at the limit, and the packets all arrive.
func TestTraceLimit(t *testing.T) {
	w := newTraced(t)
	tracer := w.start(TraceFilter{Rate: 3, Protocol: unix.IPPROTO_UDP})
	start := time.Now()
	err := w.client.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // nothing is lost with it
		for range 2000 {
			if err := unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{10, 9, 0, 1}}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	atMost := 3 + 3*(1+int(time.Since(start).Seconds()))
	if n := len(w.packets(tracer)); n < 3 || n > atMost {
		t.Errorf("%d packets, want 3 to %d", n, atMost)
	}
}

// TestTraceFollowsChanges: rules that the agent makes while packets are traced are known too.
func TestTraceFollowsChanges(t *testing.T) {
	w := newTraced(t)
	tracer := w.start(TraceFilter{Port: 81, Protocol: unix.IPPROTO_TCP})
	w.probe("10.9.0.1:81", lab.TCP)
	e := openEngine(t, w.server)
	apply(t, e, isolated(parseAddrs("10.9.0.2"), 81))
	w.probe("10.9.0.1:81", lab.TCP)
	lines := w.packets(tracer)
	if len(lines) < 2 || !strings.Contains(lines[0], " drop counter drop") ||
		!strings.HasSuffix(lines[len(lines)-1], " accept policy peers-v4 ports-81") {
		t.Errorf("packets:\n%s", strings.Join(lines, "\n"))
	}
}

// TestTraceBesideNFT: `nft monitor trace` shows the same rules meanwhile.
func TestTraceBesideNFT(t *testing.T) {
	w := newTraced(t)
	out, err := os.Create(filepath.Join(t.TempDir(), "monitor"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	var monitor *exec.Cmd
	if err := w.server.Do(func() error {
		monitor = exec.Command("nft", "monitor", "trace")
		monitor.Stdout = out
		return monitor.Start()
	}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		monitor.Process.Kill() //nolint:errcheck // it may have ended
		monitor.Wait()         //nolint:errcheck // it was killed
	}()
	await.That(t, "nft listens", w.hasTraceListener)
	tracer := w.start(TraceFilter{Port: 80})
	w.probe("10.9.0.1:80", lab.TCP)
	w.probe("10.9.0.1:80", lab.UDP)
	if lines := w.packets(tracer); len(lines) < 2 {
		t.Errorf("packets: %q", lines)
	}
	for _, want := range []string{
		`ingress-net1 rule ip saddr @peers-v4 th dport . meta l4proto @ports-80 accept comment "policy" (verdict accept)`,
		`drop (verdict drop)`, `input rule iifname "net1" goto ingress-net1 (verdict goto ingress-net1)`,
	} {
		await.That(t, "nft says "+want, func() bool {
			said, err := os.ReadFile(out.Name())
			return err == nil && strings.Contains(string(said), want)
		})
	}
}

// hasTraceListener reports whether a socket in the server's namespace receives trace events.
func (t traced) hasTraceListener() bool {
	const groups, netfilter = 3, "12" // the column, and the protocol in the column before the port
	found := false
	err := t.server.Do(func() error {
		sockets, err := os.ReadFile("/proc/thread-self/net/netlink")
		for line := range strings.Lines(string(sockets)) {
			fields := strings.Fields(line)
			if len(fields) <= groups || fields[1] != netfilter {
				continue
			}
			mask, err := strconv.ParseUint(fields[groups], 16, 32)
			found = found || err == nil && mask&(1<<(unix.NFNLGRP_NFTRACE-1)) != 0
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestTraceTwice: a trace replaces a leftover without an owner, and is refused beside another trace. Before 5.12 a running trace
// looks like a leftover, so a second trace replaces it.
func TestTraceTwice(t *testing.T) {
	w := newTraced(t)
	nft(t, w.server, "table inet multi_networkpolicy_trace { chain c { drop; }; }\n", "--file", "-")
	w.start(TraceFilter{})
	second, err := OpenTracer(w.server.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	want := ErrTracing
	if !tablesHaveOwners(t) {
		want = nil
	}
	if _, err := second.Start(TraceFilter{Rate: 1}, time.Now()); !errors.Is(err, want) {
		t.Errorf("second trace: %v, want %v", err, want)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if !tablesHaveOwners(t) {
		t.Skip("SKIPPED: this kernel has no tables that have an owner (5.12), so the second trace ended the first")
	}
	if !w.hasTable() {
		t.Error("the second trace ended the first")
	}
}

// TestTraceEndsByTime is what is done on kernels before 5.12: the mark ends by itself, and Close removes the table.
func TestTraceEndsByTime(t *testing.T) {
	w := newTraced(t)
	tracer := w.start(TraceFilter{})
	end := time.Now().Add(600 * time.Millisecond)
	if err := tracer.create(traceTable{filter: TraceFilter{Rate: 1000}, end: end}); err != nil {
		t.Fatal(err)
	}
	if out := nft(t, w.server, "", "list", "table", "inet", TraceTableName); strings.Contains(out, "flags") ||
		!strings.Contains(out, "meta time < ") {
		t.Errorf("table: %s", out)
	}
	w.probe("10.9.0.1:80", lab.TCP)
	if len(w.packets(tracer)) == 0 {
		t.Error("nothing is traced before the end")
	}
	time.Sleep(time.Until(end) + 50*time.Millisecond)
	w.packets(tracer) // what came before the end
	w.probe("10.9.0.1:80", lab.TCP)
	if lines := w.packets(tracer); len(lines) > 0 {
		t.Errorf("traced after the end: %q", lines)
	}
}

// TestRemoveTrace: the table of a trace that was killed on a kernel before 5.12 is removed. A running trace goes on if the kernel
// has tables with an owner, and the agent's table stays.
func TestRemoveTrace(t *testing.T) {
	w := newTraced(t)
	e := openEngine(t, w.server)
	removes := func(want bool) {
		t.Helper()
		if removed, err := e.RemoveTrace(); err != nil || removed != want {
			t.Errorf("removed: %t (%v), want %t", removed, err, want)
		}
	}
	removes(false)
	left, err := OpenTracer(w.server.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { left.Close() })
	if err := left.create(traceTable{filter: TraceFilter{Rate: 1}, end: time.Now().Add(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	removes(true)
	w.isGone()
	w.start(TraceFilter{})
	if !tablesHaveOwners(t) {
		removes(true)
		t.Skip("SKIPPED: this kernel has no tables that have an owner (5.12), so a trace that runs was removed too")
	}
	removes(false)
	if !w.hasTable() {
		t.Error("a trace that runs was ended")
	}
}

// traceChildVar is the namespace that a process of the test binary traces until it is killed.
const traceChildVar = "MULTI_NETWORKPOLICY_TRACE_CHILD"

// traceChild traces the namespace for a minute. It is no test, and says by its end that it could not.
func traceChild(path string) int {
	tracer, err := OpenTracer(path)
	if err == nil {
		_, err = tracer.Start(TraceFilter{Rate: 1}, time.Now().Add(time.Hour))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	time.Sleep(time.Minute)
	return 0
}

// TestTraceKilled: the kernel ends the tracing of a process that is killed. Before 5.12 the table stays, until it is removed.
func TestTraceKilled(t *testing.T) {
	w := newTraced(t)
	netns, err := os.Open(w.server.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	defer netns.Close()
	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), traceChildVar+"=/proc/self/fd/3")
	child.ExtraFiles = []*os.File{netns}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); !w.hasTable(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the child does not trace")
		}
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Wait() //nolint:errcheck // it was killed
	if !tablesHaveOwners(t) {
		if removed, err := openEngine(t, w.server).RemoveTrace(); err != nil || !removed {
			t.Errorf("removed: %t (%v)", removed, err)
		}
	}
	w.isGone()
}
