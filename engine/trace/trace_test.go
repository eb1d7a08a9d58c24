package trace

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

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/nft"
)

// traced is a client and a server. The table of the server accepts packets from the client to TCP port 80 only.
type traced struct {
	*testing.T
	server, client *lab.Host
}

func newTraced(t *testing.T) traced {
	t.Helper()
	l := lab.ForTest(t)
	server, err := l.Host("server", netip.MustParsePrefix("10.9.0.1/24"), netip.MustParsePrefix("fd09::1/64"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := l.Host("client", netip.MustParsePrefix("10.9.0.2/24"), netip.MustParsePrefix("fd09::2/64"))
	if err != nil {
		t.Fatal(err)
	}
	apply(t, server, isolated(80, "10.9.0.2", "fd09::2"))
	for _, proto := range []lab.Protocol{lab.TCP, lab.UDP} {
		if err := server.Serve(t.Context(), proto, 80); err != nil {
			t.Fatal(err)
		}
	}
	return traced{t, server, client}
}

func (t traced) start(f Filter) *Tracer {
	t.Helper()
	tracer, err := Open(t.server.NetNS())
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

// probe sends packets to the server and ignores the result.
func (t traced) probe(to string, proto lab.Protocol) {
	t.Helper()
	lab.Probe(t.Context(), t.client, netip.MustParseAddrPort(to), proto, 150*time.Millisecond)
}

// packets returns the traced packets, each as a line, until no more come.
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

func lineOf(p Packet) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s>%s %s > %s:%d", p.In, p.Out, p.Headers.Source, p.Headers.Destination, p.Headers.DestinationPort)
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

const toChain = " | prerouting goto ingress-net1 | "

// TestTrace traces accepted and dropped packets and shows the rule that decides. The filter excludes other packets.
func TestTrace(t *testing.T) {
	w := newTraced(t)
	tracer := w.start(Filter{Interface: "net1", From: netip.MustParsePrefix("10.9.0.2/32"), Port: 80})
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

// distinct removes repeated lines.
func distinct(lines []string) []string {
	var list []string
	for _, line := range lines {
		if !slices.Contains(list, line) {
			list = append(list, line)
		}
	}
	return list
}

// TestTraceFilters compares the rules of the table, as nft prints them, with the filter.
func TestTraceFilters(t *testing.T) {
	w := newTraced(t)
	v4, v6 := netip.MustParsePrefix("10.9.0.0/16"), netip.MustParsePrefix("fd09::2/128")
	for _, tc := range []struct {
		name    string
		filter  Filter
		in, out []string
	}{
		{"all", Filter{}, []string{""}, []string{""}},
		{"interface", Filter{Interface: "net1"}, []string{`iifname "net1" `}, []string{`oifname "net1" `}},
		{"IPv4", Filter{From: v4, Protocol: 17}, []string{"ip saddr 10.9.0.0/16 meta l4proto udp "}, nil},
		{"IPv6", Filter{To: v6, Protocol: 6, Port: 80}, []string{"ip6 daddr fd09::2 tcp dport 80 "}, nil},
		{"port", Filter{Port: 80}, []string{"tcp dport 80 ", "udp dport 80 ", "sctp dport 80 "}, nil},
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
			got := nft.WithoutOwner(nft.MustRun(t, w.server, "", "list", "table", "inet", TableName))
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
	return strings.Contains(nft.MustRun(t, t.server, "", "list", "tables"), TableName)
}

// isGone waits until the kernel has deleted the table, which it does soon after the socket is closed.
func (t traced) isGone() {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); t.hasTable(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the table stays")
		}
	}
	if !strings.Contains(nft.MustRun(t, t.server, "", "list", "tables"), engine.TableName) {
		t.Error("the agent's table is gone")
	}
}

// TestTraceLimit sends a flood, of which the kernel traces only as many packets as the limit allows.
func TestTraceLimit(t *testing.T) {
	w := newTraced(t)
	tracer := w.start(Filter{Rate: 3, Protocol: unix.IPPROTO_UDP})
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

// TestTraceFollowsChanges: the Tracer finds rules that the agent adds during the trace.
func TestTraceFollowsChanges(t *testing.T) {
	w := newTraced(t)
	tracer := w.start(Filter{Port: 81, Protocol: unix.IPPROTO_TCP})
	w.probe("10.9.0.1:81", lab.TCP)
	apply(t, w.server, isolated(81, "10.9.0.2"))
	w.probe("10.9.0.1:81", lab.TCP)
	lines := w.packets(tracer)
	if len(lines) < 2 || !strings.Contains(lines[0], " drop counter drop") ||
		!strings.HasSuffix(lines[len(lines)-1], " accept policy peers-v4 ports-81") {
		t.Errorf("packets:\n%s", strings.Join(lines, "\n"))
	}
}

// TestTraceBesideNFT: `nft monitor trace` shows the same rules at the same time.
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
	tracer := w.start(Filter{Port: 80})
	w.probe("10.9.0.1:80", lab.TCP)
	w.probe("10.9.0.1:80", lab.UDP)
	if lines := w.packets(tracer); len(lines) < 2 {
		t.Errorf("packets: %q", lines)
	}
	for _, want := range []string{
		`ingress-net1 rule ip saddr @peers-v4 th dport . meta l4proto @ports-80 accept comment "policy" (verdict accept)`,
		`drop (verdict drop)`, `prerouting rule iifname "net1" goto ingress-net1 (verdict goto ingress-net1)`,
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
	nft.MustRun(t, w.server, "table inet multi_networkpolicy_trace { chain c { drop; }; }\n", "--file", "-")
	w.start(Filter{})
	second, err := Open(w.server.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	want := ErrBusy
	if !tablesHaveOwners(t) {
		want = nil
	}
	if _, err := second.Start(Filter{Rate: 1}, time.Now()); !errors.Is(err, want) {
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

// TestTraceEndsByTime tests the table for kernels before 5.12: it stops to mark packets at its end, and Close deletes it.
func TestTraceEndsByTime(t *testing.T) {
	w := newTraced(t)
	tracer := w.start(Filter{})
	end := time.Now().Add(600 * time.Millisecond)
	if err := tracer.create(markTable{filter: Filter{Rate: 1000}, end: end}); err != nil {
		t.Fatal(err)
	}
	if out := nft.MustRun(t, w.server, "", "list", "table", "inet", TableName); strings.Contains(out, "flags") ||
		!strings.Contains(out, "meta time < ") {
		t.Errorf("table: %s", out)
	}
	w.probe("10.9.0.1:80", lab.TCP)
	if len(w.packets(tracer)) == 0 {
		t.Error("nothing is traced before the end")
	}
	time.Sleep(time.Until(end) + 50*time.Millisecond)
	w.packets(tracer) // the packets before the end
	w.probe("10.9.0.1:80", lab.TCP)
	if lines := w.packets(tracer); len(lines) > 0 {
		t.Errorf("traced after the end: %q", lines)
	}
}

// TestRemoveTrace: the table of a trace that was killed on a kernel before 5.12 is removed. A running trace goes on if the kernel
// has tables with an owner, and the agent's table stays.
func TestRemoveTrace(t *testing.T) {
	w := newTraced(t)
	removes := func(want bool) {
		t.Helper()
		if removed, err := Remove(w.server.NetNS()); err != nil || removed != want {
			t.Errorf("removed: %t (%v), want %t", removed, err, want)
		}
	}
	removes(false)
	left, err := Open(w.server.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { left.Close() })
	if err := left.create(markTable{filter: Filter{Rate: 1}, end: time.Now().Add(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	removes(true)
	w.isGone()
	w.start(Filter{})
	if !tablesHaveOwners(t) {
		removes(true)
		t.Skip("SKIPPED: this kernel has no tables that have an owner (5.12), so a trace that runs was removed too")
	}
	removes(false)
	if !w.hasTable() {
		t.Error("a trace that runs was ended")
	}
}

// traceChildVar holds the path of the namespace that a child process of the test traces until it is killed.
const traceChildVar = "MULTI_NETWORKPOLICY_TRACE_CHILD"

// traceChild is the child process: it traces the namespace for a minute. It returns early only if that fails.
func traceChild(path string) int {
	tracer, err := Open(path)
	if err == nil {
		_, err = tracer.Start(Filter{Rate: 1}, time.Now().Add(time.Hour))
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
		if removed, err := Remove(w.server.NetNS()); err != nil || !removed {
			t.Errorf("removed: %t (%v)", removed, err)
		}
	}
	w.isGone()
}
