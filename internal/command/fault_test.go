package command

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// Tests of faults in the environment of an agent, with the agent as a separate process. During a fault, enforced policies stay in
// force and no forbidden packet passes. After the fault, the agent recovers by itself.

// faultRig is a node with an agent that has enforced the policy.
type faultRig struct {
	*node.Node
	agent   *process
	metrics string
}

func newFaultRig(t *testing.T, args ...string) *faultRig {
	t.Helper()
	address := cluster.LoopbackAddress()
	r := &faultRig{Node: node.New(t), metrics: "http://" + address + "/metrics"}
	r.Load(node.Cluster + node.Policy)
	r.StartRuntime("server")
	r.agent = startProcess(t, r.Node, append([]string{"--metrics-bind-address=" + address}, args...)...)
	r.IsEnforced(true)
	return r
}

// metric returns the value of a series of the agent's metrics, or 0 if it does not exist.
func (r *faultRig) metric(t *testing.T, series string) float64 {
	t.Helper()
	_, page := node.Get(t, r.metrics)
	for line := range strings.Lines(page) {
		if text, found := strings.CutPrefix(strings.TrimSpace(line), series+" "); found {
			value, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	return 0
}

// closedWorld is the world of node.Policy, without peers.
var closedWorld = strings.ReplaceAll(node.Cluster+node.Policy, "app: friend}}}", "app: nobody}}}")

// An API server that answers with errors of every kind, and forgets the version of the agent's watches.
func TestServerErrors(t *testing.T) {
	for _, err := range []error{
		apierrors.NewResourceExpired("the version is too old"), apierrors.NewTooManyRequests("later", 1),
		apierrors.NewInternalError(fmt.Errorf("broken")), apierrors.NewServiceUnavailable("starting"), apierrors.NewUnauthorized("who are you"),
	} {
		t.Run(string(apierrors.ReasonForError(err)), func(t *testing.T) {
			t.Parallel()
			r := newFaultRig(t)
			r.API.SetFault(cluster.Refuse(err))
			r.API.Stop() // every watch ends
			if err := r.API.Start(); err != nil {
				t.Fatal(err)
			}
			r.Stays("enforced while the server refuses", true, false)
			r.Load(closedWorld)
			r.API.SetFault(nil)
			r.Becomes("the change made meanwhile", false, false)
			await.That(t, "no outage is left", func() bool { return r.metric(t, `multi_networkpolicy_watch_down{source="Pod"}`) == 0 })
			r.agent.end(syscall.SIGTERM)
		})
	}
}

// An API server that accepts requests and never answers.
func TestServerSilent(t *testing.T) {
	t.Parallel()
	r := newFaultRig(t)
	r.API.SetFault(func(_ http.ResponseWriter, q *http.Request) bool { <-q.Context().Done(); return true })
	r.API.Stop()
	if err := r.API.Start(); err != nil {
		t.Fatal(err)
	}
	r.Stays("enforced while the server is silent", true, false)
	r.Load(closedWorld)
	time.Sleep(2 * time.Second)
	r.API.SetFault(nil)
	r.Becomes("the change made meanwhile", false, false) // after the timeout of the agent's request
	r.agent.end(syscall.SIGTERM)
}

// The runtime never answers about a sandbox. Other sandboxes are not delayed.
func TestRuntimeHangs(t *testing.T) {
	t.Parallel()
	r := newFaultRig(t)
	r.Runtime.HangStatus("sandbox-stranger")
	late := strings.Replace(node.Policy, "matchLabels: {app: server}", "matchLabels: {app: late}", 1)
	late = strings.Replace(late, "name: p, uid: p,", "name: late, uid: late,", 1)
	verdict := r.late(t, "server", "stranger", "late") // stranger hangs
	r.Load(node.Cluster + node.Policy + late + podOn("late", "10.9.0.4"))
	start := time.Now()
	await.That(t, "another pod is enforced", func() bool { return verdict() == lab.Dropped })
	if took := time.Since(start); took > 8*time.Second { // the timeout of a status call is ten seconds
		t.Errorf("another pod waited %s", took)
	}
	r.Stays("enforced", true, false)
	r.agent.end(syscall.SIGTERM)
}

// late starts the pod late on the node, with a server, and sets the sandboxes of the runtime. verdict probes the pod.
func (r *faultRig) late(t *testing.T, sandboxes ...string) (verdict func() lab.Verdict) {
	t.Helper()
	host, err := r.Network.Host("late", netip.MustParsePrefix("10.9.0.4/16"))
	if err != nil {
		t.Fatal(err)
	}
	r.Hosts["late"] = host
	if err := host.Serve(t.Context(), lab.TCP, 80); err != nil {
		t.Fatal(err)
	}
	r.SetSandboxes(sandboxes...)
	return func() lab.Verdict {
		return lab.Probe(t.Context(), r.Hosts["stranger"], netip.MustParseAddrPort("10.9.0.4:80"), lab.TCP, 250*time.Millisecond).Verdict
	}
}

// podOn returns the manifest of a local pod on the network.
func podOn(name, addr string) string {
	return fmt.Sprintf(`
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: %[1]s, uid: %[1]s, labels: {app: %[1]s}, annotations: {
  k8s.v1.cni.cncf.io/network-status: '[{"name": "ns/net", "interface": "net1", "ips": ["%[2]s"]}]'}},
  spec: {nodeName: here}, status: {phase: Running}}
`, name, addr)
}

// The agent has no file descriptor for another pod. Earlier pods stay enforced, the failure is logged, and the new pod is
// enforced when descriptors are available again.
func TestNoDescriptors(t *testing.T) {
	r := newFaultRig(t)
	r.limitFiles(t, 0)
	world := node.Cluster + node.Policy
	late := strings.Replace(node.Policy, "podSelector: {matchLabels: {app: server}}", "podSelector: {}", 1)
	world += strings.Replace(late, "name: p, uid: p,", "name: all, uid: all,", 1)
	host, err := r.Network.Host("late", netip.MustParsePrefix("10.9.0.4/16"))
	if err != nil {
		t.Fatal(err)
	}
	r.Hosts["late"] = host
	if err := host.Serve(t.Context(), lab.TCP, 80); err != nil {
		t.Fatal(err)
	}
	reaches := func() bool {
		return lab.Probe(t.Context(), r.Hosts["stranger"], netip.MustParseAddrPort("10.9.0.4:80"), lab.TCP, 250*time.Millisecond).Verdict == lab.Allowed
	}
	r.SetSandboxes("server", "late")
	r.Load(world + podOn("late", "10.9.0.4"))
	r.agent.says("too many open files")
	r.Stays("enforced without descriptors", true, false)
	if !reaches() {
		t.Error("the other pod is enforced without a descriptor") // the fault had no effect
	}
	r.limitFiles(t, 1000)
	await.That(t, "the other pod is enforced", func() bool { return !reaches() })
	r.agent.end(syscall.SIGTERM)
}

// limitFiles limits the number of files that the agent may open in addition to its open files.
func (r *faultRig) limitFiles(t *testing.T, more int) {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.agent.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Prlimit(r.agent.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		t.Fatal(err)
	}
	limit.Cur = uint64(len(open) + more)
	if err := unix.Prlimit(r.agent.cmd.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
}

// The file system of the log is full.
func TestNoRoomForLog(t *testing.T) {
	full := filepath.Join("/dev", "full")
	r := newFaultRig(t)
	r.agent.end(syscall.SIGTERM)
	log, err := os.OpenFile(full, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if _, err := log.WriteString("x"); err == nil {
		t.Fatalf("%s has room", full)
	}
	address := cluster.LoopbackAddress()
	r.metrics = "http://" + address + "/metrics"
	r.agent = startProcessTo(t, r.Node, log, "--metrics-bind-address="+address, "-v=3")
	r.Load(closedWorld)
	r.Becomes("enforced by an agent that cannot log", false, false)
	r.Load(node.Cluster + node.Policy)
	r.Becomes("changed", true, false)
	if n := r.metric(t, "multi_networkpolicy_sync_failures_total"); n > 0 {
		t.Errorf("%v failures", n)
	}
	r.agent.end(syscall.SIGTERM)
}

// The agent starts with a wrong name of the node. It changes no table, and a metric counts the sandbox of an unknown pod.
func TestRenamedNode(t *testing.T) {
	r := newFaultRig(t)
	r.agent.end(syscall.SIGTERM)
	before := lab.Generation(t, r.Hosts["server"])
	address := cluster.LoopbackAddress()
	r.metrics = "http://" + address + "/metrics"
	r.agent = startProcess(t, r.Node, "--hostname-override=somewhere-else", "--metrics-bind-address="+address)
	r.agent.says("All inputs in sync")
	await.That(t, "the sandbox is of an unknown pod", func() bool { return r.metric(t, "multi_networkpolicy_unknown_sandboxes") == 1 })
	r.Stays("enforced", true, false)
	if lab.Generation(t, r.Hosts["server"]) != before {
		t.Error("the table has changed")
	}
	r.agent.end(syscall.SIGTERM)
}

// Thousands of pods and policies come and go. Afterwards the agent has about as many series, goroutines and files as before.
func TestNothingIsLeft(t *testing.T) {
	r := newFaultRig(t, "--policy-counters")
	const (
		rounds = 12
		pods   = 200
	)
	world := func(round int) string {
		var b strings.Builder
		b.WriteString(node.Cluster + node.Policy)
		for i := range pods {
			b.WriteString(podOn(fmt.Sprintf("pod-%d-%d", round, i), fmt.Sprintf("10.9.%d.%d", 1+i/250, 1+i%250)))
			if i%10 == 0 {
				b.WriteString(strings.Replace(node.Policy, "name: p, uid: p,", fmt.Sprintf("name: p-%d-%d, uid: p-%d-%d,", round, i, round, i), 1))
			}
		}
		return b.String()
	}
	play := func(from, to int) {
		for round := from; round < to; round++ {
			r.Load(world(round))
			await.That(t, "all pods are known", func() bool { return r.metric(t, `multi_networkpolicy_cache_objects{kind="local_pod"}`) == pods+1 })
			r.Load(node.Cluster + node.Policy)
			await.That(t, "all pods are forgotten", func() bool { return r.metric(t, `multi_networkpolicy_cache_objects{kind="local_pod"}`) == 1 })
		}
	}
	play(0, 2)
	series := func() map[string]float64 {
		await.That(t, "all work is done", func() bool { return r.metric(t, "multi_networkpolicy_queue_depth") == 0 })
		_, page := node.Get(t, r.metrics)
		return map[string]float64{
			"series": float64(strings.Count(page, "\n")), "goroutines": r.metric(t, "go_goroutines"), "descriptors": r.metric(t, "process_open_fds"),
			"namespaces": r.metric(t, `multi_networkpolicy_cache_objects{kind="namespace"}`), "networks": r.metric(t, `multi_networkpolicy_cache_objects{kind="network"}`),
			"port lists": r.metric(t, `multi_networkpolicy_cache_objects{kind="port_list"}`), "groups": r.metric(t, "multi_networkpolicy_peer_groups"),
		}
	}
	await.That(t, "the policy is counted", func() bool {
		_, page := node.Get(t, r.metrics)
		return strings.Contains(page, `policy="p"`)
	})
	before := series()
	play(2, rounds)
	r.Becomes("enforced as before", true, false)
	await.That(t, "as few as before", func() bool {
		for what, n := range series() {
			if n > before[what]+5 { // goroutines of the API server's connections come and go
				t.Logf("%v %s, were %v", n, what, before[what])
				return false
			}
		}
		return true
	})
	if n := r.metric(t, "go_memstats_heap_inuse_bytes"); n > 100<<20 {
		t.Errorf("%.0f MiB of heap", n/(1<<20))
	}
	r.agent.end(syscall.SIGTERM)
}
