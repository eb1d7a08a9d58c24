package agent

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// egressPolicy lets pods with the label send to nobody.
const egressPolicy = `
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: mute, uid: mute,
  annotations: {k8s.v1.cni.cncf.io/policy-for: net}}, spec: {podSelector: {matchLabels: {app: mute}}, policyTypes: [Egress]}}
`

// hookedRig is a rig whose runtime asks before pods start, with an agent that is ready.
type hookedRig struct {
	*rig
	nri     *cluster.NRI
	sink    *lab.Sink
	metrics string
	stop    func()
}

func newHookedRig(t *testing.T) *hookedRig {
	t.Helper()
	r := &hookedRig{rig: newRig(t)}
	r.Load(node.Cluster + egressPolicy)
	socket := filepath.Join(filepath.Dir(r.RuntimeSocket), "nri.sock")
	r.nri = cluster.NewNRI(socket)
	t.Cleanup(r.nri.Stop)
	if err := r.nri.Start(); err != nil {
		t.Fatal(err)
	}
	if err := r.Runtime.Start(); err != nil {
		t.Fatal(err)
	}
	r.config.NRISocket = socket
	r.config.MetricsAddress = cluster.LoopbackAddress()
	r.metrics = "http://" + r.config.MetricsAddress + "/metrics"
	r.sink = lab.NewSink(t, r.Hosts["server"])
	r.stop = r.start()
	await.That(t, "a plugin", func() bool { return r.nri.Plugins() == 1 })
	return r
}

// starting is a pod whose network is there and whom the API server has not told of yet. It gives the pod's address.
func (r *hookedRig) starting(i int, labels map[string]string) (cluster.Pod, *lab.Host, netip.Addr) {
	r.t.Helper()
	addr := netip.AddrFrom4([4]byte{10, 9, 1, byte(i)})
	name := fmt.Sprintf("new-%d", i)
	host, err := r.Network.Host(name, netip.PrefixFrom(addr, 16))
	if err != nil {
		r.t.Fatal(err)
	}
	return cluster.Pod{
		SandboxID: "s-" + name, UID: name, Namespace: "ns", Name: name, Labels: labels, NetNS: host.NetNS(),
		Annotations: map[string]string{"k8s.v1.cni.cncf.io/networks": "net"},
	}, host, addr
}

func (r *hookedRig) expect(metrics ...string) {
	r.t.Helper()
	_, page := node.Get(r.t, r.metrics)
	for _, m := range metrics {
		if !strings.Contains(page, "\n"+metricsPrefix+m+"\n") {
			r.t.Errorf("no %q", m)
		}
	}
}

var mutePod = map[string]string{"app": "mute"}

// Pods flood from the moment that the runtime may start their first process. Nothing of those that may not send gets
// out, though the API server has told nothing of them, and all of the others does.
func TestFirstInstant(t *testing.T) {
	r := newHookedRig(t)
	to := netip.MustParseAddrPort("10.9.0.1:5000")
	const pods = 20
	var slowest, all time.Duration
	for i := range pods {
		labels := mutePod
		if free := i%4 == 3; free {
			labels = map[string]string{"app": "free"}
		}
		pod, host, addr := r.starting(i+1, labels)
		start := time.Now()
		if err := r.nri.Run(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
		took := time.Since(start)
		f := lab.StartFlood(t, host, to, lab.ForbiddenPatience)
		if labels["app"] == "free" {
			await.That(t, "the flood of a free pod", func() bool { n, _ := r.sink.Received(addr); return n > 20 })
			f.End()
			continue
		}
		slowest, all = max(slowest, took), all+took
		await.That(t, "a flood", func() bool { return f.Sent.Load() > 100 })
		f.End()
		if n, connections := r.sink.Received(addr); n+connections > 0 {
			t.Errorf("%s: %d datagrams and %d connections got out", pod.Name, n, connections)
		}
		if f.Refused.Load() != int64(f.Sent.Load()) {
			t.Errorf("%s: %d of %d were refused", pod.Name, f.Refused.Load(), f.Sent.Load())
		}
	}
	t.Logf("the runtime waited %s, at most %s", all/(pods*3/4), slowest)
	r.expect(`pod_hooks_total{result="enforced"} 15`, `pod_hooks_total{result="unselected"} 5`, `pod_hooks_total{result="refused"} 0`,
		"pod_hook_duration_seconds_count 20", "pod_start_duration_seconds_count 15", `watch_down{source="NRI"} 0`)
}

// TestFirstInstantOfVirtualMachine: the rules for the bridge are in force when the first process of the pod moves the interface into
// it, so a virtual machine that may not send gets nothing out.
func TestFirstInstantOfVirtualMachine(t *testing.T) {
	t.Parallel()
	lab.HasBridgeNetfilter(t) // logs it if the test runs without br_netfilter
	r := newHookedRig(t)
	for i, app := range []string{"free", "mute"} {
		pod, host, addr := r.starting(i+1, map[string]string{"app": app, "kubevirt.io": "virt-launcher"})
		if err := r.nri.Run(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
		guest, err := host.VirtualMachine("net1")
		if err != nil {
			t.Fatal(err)
		}
		f := lab.StartFlood(t, guest, netip.MustParseAddrPort("10.9.0.1:5000"), lab.ForbiddenPatience)
		if app == "free" {
			await.That(t, "the flood of a free virtual machine", func() bool { n, _ := r.sink.Received(addr); return n > 20 })
			f.End()
			continue
		}
		await.That(t, "a flood", func() bool { return f.Sent.Load() > 100 })
		f.End()
		if n, connections := r.sink.Received(addr); n+connections > 0 {
			t.Errorf("%d datagrams and %d connections got out", n, connections)
		}
	}
}

// A pod that was only announced becomes the API server's, keeps its rules, gets what changes, and goes.
func TestAnnouncedPodIsReplaced(t *testing.T) {
	r := newHookedRig(t)
	pod, host, addr := r.starting(1, mutePod)
	if err := r.nri.Run(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	r.Runtime.Set(cluster.Sandbox{
		ID: pod.SandboxID, UID: pod.UID, Namespace: "ns", Name: pod.Name, CreatedAt: 1, Info: cluster.InfoOf(pod.NetNS),
	})
	const document = `
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: new-1, uid: new-1, labels: {app: %s}, annotations: {
  k8s.v1.cni.cncf.io/networks: net%s}}, spec: {nodeName: here}, status: {phase: Pending}}
`
	const status = `, k8s.v1.cni.cncf.io/network-status: '[{"name": "ns/net", "interface": "net1", "ips": ["10.9.1.1"]}]'`
	f := lab.StartFlood(t, host, netip.MustParseAddrPort("10.9.0.1:5000"), lab.ForbiddenPatience)
	defer f.End()
	for _, annotation := range []string{"", status} {
		r.Load(node.Cluster + egressPolicy + fmt.Sprintf(document, "mute", annotation))
		time.Sleep(700 * time.Millisecond) // a list of the runtime is among what happens
	}
	if n, connections := r.sink.Received(addr); n+connections > 0 {
		t.Errorf("%d datagrams and %d connections got out", n, connections)
	}
	r.Load(node.Cluster + egressPolicy + fmt.Sprintf(document, "free", status))
	await.That(t, "the pod may send", func() bool { n, _ := r.sink.Received(addr); return n > 0 })
	r.nri.End(t.Context(), pod)
	r.Load(node.Cluster + egressPolicy)
	await.That(t, "nothing is left", func() bool {
		_, page := node.Get(t, r.metrics)
		return strings.Contains(page, metricsPrefix+`cache_objects{kind="local_pod"} 1`)
	})
}

// A pod whose kernel refuses the rules does not start; the same pod does when the kernel takes them.
func TestKernelRefuses(t *testing.T) {
	features, err := engine.Probe()
	if err != nil {
		t.Fatal(err)
	}
	if !features.Owner {
		t.Skip("SKIPPED: this kernel has no tables that have an owner (6.9), by which to make it refuse")
	}
	r := newHookedRig(t)
	pod, host, addr := r.starting(1, mutePod)
	other, err := engine.Open("another", host.NetNS(), engine.Options{Own: true})
	if err != nil {
		t.Fatal(err)
	}
	chain := &engine.Chain{Name: "c"}
	if err := other.Apply(t.Context(), engine.NewRuleset(nil, []*engine.Chain{chain})); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	err = r.nri.Run(t.Context(), pod)
	if err == nil || !strings.Contains(err.Error(), "operation not permitted") {
		t.Errorf("error %v", err)
	}
	t.Logf("refused after %s: %v", time.Since(start), err)
	// One that no policy selects starts in the same namespace.
	free := pod
	free.UID, free.Name, free.SandboxID, free.Labels = "free", "free", "s-free", nil
	if err := r.nri.Run(t.Context(), free); err != nil {
		t.Error(err)
	}
	r.nri.End(t.Context(), free)
	await.That(t, "an Event", func() bool {
		for _, e := range r.API.Events() {
			if e.InvolvedObject.Name == pod.Name && e.Reason == "PolicyNotEnforced" {
				return true
			}
		}
		return false
	})
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	pod.SandboxID += "-again"
	if err := r.nri.Run(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	f := lab.StartFlood(t, host, netip.MustParseAddrPort("10.9.0.1:5000"), lab.ForbiddenPatience)
	await.That(t, "a flood", func() bool { return f.Sent.Load() > 50 })
	f.End()
	if n, connections := r.sink.Received(addr); n+connections > 0 {
		t.Errorf("%d datagrams and %d connections got out", n, connections)
	}
	r.expect(`pod_hooks_total{result="enforced"} 1`, `pod_hooks_total{result="refused"} 1`, `pod_hooks_total{result="unselected"} 1`)
}

// TestClosedStart: a pod with very large tables starts closed. No forbidden packet gets out, and allowed packets do as soon as its
// own tables are in force.
func TestClosedStart(t *testing.T) {
	r := newHookedRig(t)
	var policies strings.Builder
	for i := range 2 {
		var rules []string
		for j := range 450 {
			rules = append(rules, fmt.Sprintf("{to: [{ipBlock: {cidr: 10.20.%d.%d/32}}]}", i*4+j/250, j%250))
		}
		if i == 1 {
			rules = append(rules, "{to: [{ipBlock: {cidr: 10.9.0.1/32}}]}")
		}
		fmt.Fprintf(&policies, `
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: large-%d, uid: large-%[1]d,
  annotations: {k8s.v1.cni.cncf.io/policy-for: net}}, spec: {podSelector: {matchLabels: {app: large}}, policyTypes: [Egress],
  egress: [%s]}}
`, i, strings.Join(rules, ", "))
	}
	r.Load(node.Cluster + egressPolicy + policies.String())
	await.That(t, "the policies", func() bool {
		_, page := node.Get(t, r.metrics)
		return strings.Contains(page, metricsPrefix+`policies{state="all"} 3`)
	})
	denied := lab.NewSink(t, r.Hosts["friend"])
	pod, host, addr := r.starting(1, map[string]string{"app": "large"})
	start := time.Now()
	if err := r.nri.Run(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	t.Logf("the runtime waited %s", time.Since(start))
	r.expect("closed_starts_total 1", `pod_hooks_total{result="enforced"} 1`)
	allowed := lab.StartFlood(t, host, netip.MustParseAddrPort("10.9.0.1:5000"), lab.ForbiddenPatience)
	forbidden := lab.StartFlood(t, host, netip.MustParseAddrPort("10.9.0.2:5000"), lab.ForbiddenPatience)
	await.That(t, "the allowed flood", func() bool { n, _ := r.sink.Received(addr); return n > 100 })
	await.That(t, "a forbidden flood", func() bool { return forbidden.Sent.Load() > 100 })
	allowed.End()
	forbidden.End()
	if n, connections := denied.Received(addr); n+connections > 0 {
		t.Errorf("%d datagrams and %d connections got out", n, connections)
	}
}

// What starts while the agent is busy with all others does not wait for them, and pods that start side by side do not
// disturb each other.
func TestHooksPassTheQueue(t *testing.T) {
	r := newHookedRig(t)
	pod, _, _ := r.starting(1, mutePod)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changes := make(chan struct{})
	go func() {
		defer close(changes)
		for i := 0; ctx.Err() == nil; i++ {
			r.Load(node.Cluster + egressPolicy + strings.ReplaceAll(node.Policy, "10.9.0.0/33", fmt.Sprintf("10.9.%d.0/24", i%250)))
		}
	}()
	var slowest time.Duration
	for i := range 50 {
		pod.SandboxID = fmt.Sprint("s", i)
		start := time.Now()
		if err := r.nri.Run(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(start))
	}
	cancel()
	<-changes
	t.Logf("slowest: %s", slowest)
	if slowest > 900*time.Millisecond {
		t.Errorf("a pod waited %s", slowest)
	}
}

// TestReadyWithNRI checks that an agent whose NRI socket is configured becomes ready only when the runtime has connected, and stays
// ready when the connection is lost.
func TestReadyWithNRI(t *testing.T) {
	r := newRig(t)
	r.Load(node.Cluster)
	r.StartRuntime("server")
	nri := cluster.NewNRI(filepath.Join(filepath.Dir(r.RuntimeSocket), "nri.sock"))
	t.Cleanup(nri.Stop)
	r.config.NRISocket = filepath.Join(filepath.Dir(r.RuntimeSocket), "nri.sock")
	r.config.HealthAddress = cluster.LoopbackAddress()
	health := "http://" + r.config.HealthAddress + "/readyz"
	r.start()
	await.That(t, "NRI is all that is missing", func() bool {
		code, body := node.Get(t, health)
		return code == http.StatusServiceUnavailable && strings.TrimSpace(body) == "waiting for the container runtime's NRI"
	})
	if err := nri.Start(); err != nil {
		t.Fatal(err)
	}
	await.That(t, "readyz", func() bool { code, _ := node.Get(t, health); return code == http.StatusOK })
	nri.Stop()
	if code, body := node.Get(t, health); code != http.StatusOK {
		t.Errorf("readyz without NRI: %d, %q", code, body)
	}
}
