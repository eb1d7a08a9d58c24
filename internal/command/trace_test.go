package command

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/explain"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/trace"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/nft"
)

// traceRig is the pod shop/web of testdata/cluster in a real network namespace with its table in force, a runtime with its
// sandbox, and two of its neighbors.
type traceRig struct {
	*testing.T
	web, frontend, monitoring *lab.Host
	socket                    string
}

func newTraceRig(t *testing.T) traceRig {
	t.Helper()
	w, err := loadFiles(t.Context(), cache.Options{NetworkPlugins: cache.DefaultNetworkPlugins(), Limits: policy.DefaultLimits()},
		informers.Input{Paths: []string{"testdata/cluster"}})
	if err != nil {
		t.Fatal(err)
	}
	ruleset, err := explain.Preview(w.cache, cache.Key{Namespace: "shop", Name: "web"})
	if err != nil {
		t.Fatal(err)
	}
	r := traceRig{T: t}
	network := lab.ForTest(t)
	for _, h := range []struct {
		host *(*lab.Host)
		addr string
	}{{&r.web, "10.10.0.12"}, {&r.frontend, "10.10.0.11"}, {&r.monitoring, "10.10.0.21"}} {
		if *h.host, err = network.Host(h.addr, netip.PrefixFrom(netip.MustParseAddr(h.addr), 24)); err != nil {
			t.Fatal(err)
		}
	}
	e, err := engine.Open("shop/web", r.web.NetNS(), engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := e.Apply(t.Context(), ruleset[engine.Inet]); err != nil {
		t.Fatal(err)
	}
	for proto, port := range map[lab.Protocol]uint16{lab.TCP: 8080, lab.UDP: 5000} {
		if err := r.web.Serve(t.Context(), proto, port); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.MkdirTemp("", "trace") // a socket's path may not be as long as t.TempDir's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // a temporary directory
	r.socket = filepath.Join(dir, "cri.sock")
	runtime := cluster.NewRuntime(r.socket)
	runtime.Set(cluster.Sandbox{
		ID: "s1", UID: "u1", Namespace: "shop", Name: "web", Info: cluster.InfoOf(r.web.NetNS()),
	})
	if err := runtime.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(runtime.Stop)
	return r
}

// tape is output that can be read while it is written.
type tape struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *tape) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *tape) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// trace runs the command until play returns, ends it by SIGTERM, and returns its output.
func (r traceRig) trace(play func(), args ...string) (out, notes string) {
	r.Helper()
	var stdout, stderr tape
	done := make(chan int)
	go func() {
		done <- Main("v1", append([]string{"trace", "--container-runtime-endpoint", r.socket}, args...), &stdout, &stderr)
	}()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(stderr.String(), "tracing "); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("does not start: %s", stderr.String())
		}
	}
	play()
	time.Sleep(200 * time.Millisecond)
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		r.Fatal(err)
	}
	if code := <-done; code != 0 {
		r.Fatalf("exit code %d: %s", code, stderr.String())
	}
	return stdout.String(), stderr.String()
}

func (r traceRig) probe(from *lab.Host, proto lab.Protocol, port uint16) {
	to := netip.AddrPortFrom(netip.MustParseAddr("10.10.0.12"), port)
	lab.Probe(r.Context(), from, to, proto, 150*time.Millisecond)
}

// hasTraceTable reports whether stock nft lists the table of a trace.
func (r traceRig) hasTraceTable() bool {
	r.Helper()
	out, err := nft.Run(r.web, "", "list", "tables")
	if err != nil || !strings.Contains(out, engine.TableName+"\n") {
		r.Fatalf("nft: %v: %s", err, out)
	}
	return strings.Contains(out, trace.TableName)
}

// unsteady matches the parts of the output that differ from run to run.
var unsteady = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.\d{6}`), "hh:mm:ss.ssssss"},
	{regexp.MustCompile(`"time":"[^"]*"`), `"time":"TIME"`},
	{regexp.MustCompile(`"sourcePort":\d+`), `"sourcePort":9`},
	{regexp.MustCompile(`(10\.10\.0\.\d+):\d+ ->`), "$1:PORT ->"},
	{regexp.MustCompile(` rule \d+`), " rule N"},
	{regexp.MustCompile(`"handle":\d+`), `"handle":1`},
}

// steady returns the output without the parts that differ, with each kind of packet once.
func steady(out string, isStart func(line string) bool) string {
	for _, u := range unsteady {
		out = u.pattern.ReplaceAllString(out, u.with)
	}
	var packets []string
	for line := range strings.Lines(out) {
		if isStart(line) {
			packets = append(packets, "")
		}
		packets[len(packets)-1] += line
	}
	var kinds []string
	for _, p := range packets {
		if !slices.Contains(kinds, p) {
			kinds = append(kinds, p)
		}
	}
	return strings.Join(kinds, "")
}

// TestTraceGolden traces real packets, allowed and denied, as text and as JSON.
func TestTraceGolden(t *testing.T) {
	r := newTraceRig(t)
	for _, tc := range []struct {
		file    string
		args    []string
		isStart func(string) bool
	}{
		{"testdata/trace.txt", nil, func(line string) bool { return !strings.HasPrefix(line, " ") }},
		{"testdata/trace.json", []string{"--output", "json"}, func(string) bool { return true }},
	} {
		out, notes := r.trace(func() {
			r.probe(r.frontend, lab.TCP, 8080)
			r.probe(r.monitoring, lab.TCP, 8080)
			r.probe(r.monitoring, lab.UDP, 5000)
		}, append(tc.args, "--pod", "shop/web", "--to", "10.10.0.12", "--limit", "500")...)
		if !strings.HasPrefix(notes, "tracing shop/web for 1m0s, at most 500 packets a second\n") || !strings.HasSuffix(notes, " packets\n") {
			t.Errorf("notes: %s", notes)
		}
		got := steady(out, tc.isStart)
		if *updateConsole {
			writeText(t, tc.file, got)
		} else if diff := cmp.Diff(strings.Split(readText(t, tc.file), "\n"), strings.Split(got, "\n")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.file, diff)
		}
		if r.hasTraceTable() {
			t.Error("the table is still there")
		}
	}
}

// TestTraceFilter checks that only packets that match the flags are shown, and that the direction that no policy isolates is
// shown as open.
func TestTraceFilter(t *testing.T) {
	r := newTraceRig(t)
	out, _ := r.trace(func() {
		if !r.hasTraceTable() {
			t.Error("there is no table")
		}
		r.probe(r.frontend, lab.TCP, 8080)
		r.probe(r.monitoring, lab.UDP, 5000)
	}, "--netns", r.web.NetNS(), "--from", "10.10.0.12", "--to", "10.10.0.16/28", "--protocol", "udp", "--interface", "net1")
	packets := strings.Count(out, "\n  ")
	if packets == 0 || packets != strings.Count(out, " ALLOWED: udp 10.10.0.12:5000 -> 10.10.0.21:") ||
		packets != strings.Count(out, ", egress on net1\n  the agent's table does not look at it: no policy isolates") {
		t.Errorf("output:\n%s", out)
	}
}

// TestTraceDuration checks that a trace ends after its duration.
func TestTraceDuration(t *testing.T) {
	r := newTraceRig(t)
	var out, notes bytes.Buffer
	start := time.Now()
	if code := Main("v1", []string{"trace", "--netns", r.web.NetNS(), "--duration", "300ms"}, &out, &notes); code != 0 {
		t.Errorf("exit code %d: %s", code, notes.String())
	}
	if took := time.Since(start); took < 300*time.Millisecond || took > 10*time.Second {
		t.Errorf("took %s", took)
	}
	if r.hasTraceTable() {
		t.Error("the table is still there")
	}
}

func TestTraceUsage(t *testing.T) {
	for _, tc := range []struct {
		args, want string
		code       int
	}{
		{"", `--pod "": must be NAMESPACE/NAME`, 2},
		{"--pod a/b --duration 2h", "--duration 2h0m0s: must be up to 1h0m0s", 2},
		{"--pod a/b --limit 0", "--limit 0: must be 1 to 10000", 2},
		{"--pod a/b --from fd00::1 --to 10.0.0.0/8", "no packet is both from fd00::1/128 and to 10.0.0.0/8", 2},
		{"--pod a/b --from fd00::/129", `--from "fd00::/129": must be an IP or a CIDR`, 2},
		{"--pod a/b --protocol icmp --port 8", "--port: icmp has no ports", 2},
		{"--pod a/b --interface interface-with-a-name", "longer than a name can be", 2},
		{"--pod a/b --output yaml", `--output "yaml": must be one of text, json`, 2},
		{"--pod a/b --container-runtime-endpoint /no/such.sock", "--netns names a network namespace without a runtime", 1},
		{"--netns /proc/thread-self/ns/net", "this is the agent's own network namespace", 1},
	} {
		var out, errs bytes.Buffer
		code := Main("v1", append([]string{"trace"}, strings.Fields(tc.args)...), &out, &errs)
		if code != tc.code || !strings.Contains(errs.String(), tc.want) {
			t.Errorf("%s: exit code %d: %s", tc.args, code, errs.String())
		}
	}
}
