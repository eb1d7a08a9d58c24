package agent

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nflog"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/drops"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/nft"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// logged is the cluster with the annotation drop-log on the server's pod, and the policy.
func logged(value string) string {
	return strings.Replace(node.Cluster, "labels: {app: server}, annotations: {",
		"labels: {app: server}, annotations: {\n  multi-networkpolicy/drop-log: '"+value+"',", 1) + node.Policy
}

// inMode returns objects with the policy in a mode.
func inMode(objects, mode string) string {
	return strings.Replace(objects, "annotations: {k8s.v1.cni.cncf.io/policy-for", "annotations: {multi-networkpolicy/mode: "+mode+
		", k8s.v1.cni.cncf.io/policy-for", 1)
}

// follower collects what drops.Follow shows.
type follower struct {
	mu   sync.Mutex
	seen []drops.Drop
}

func follow(t *testing.T, address string, filter drops.Filter) *follower {
	t.Helper()
	f := &follower{}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- drops.Follow(ctx, http.DefaultTransport, address, filter, drops.Handler{Show: func(d drops.Drop) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.seen = append(f.seen, d)
			return nil
		}, Lost: func(int) error { return nil }})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil && !errors.Is(err, drops.ErrEnded) { // the agent may have ended before
			t.Errorf("follow: %v", err)
		}
	})
	return f
}

// has reports whether a packet from the address, with a verdict, has been shown.
func (f *follower) has(source string, verdict drops.Verdict) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.seen {
		if d.Packet.Source == source && d.Verdict == verdict && d.Namespace == "ns" && d.Pod == "server" && d.Interface == "net1" &&
			d.Direction == "ingress" && d.Packet.DestinationPort == 80 && len(d.Policies) == 1 && d.Policies[0] == "ns/p" {
			return true
		}
	}
	return false
}

// newDropRig is a rig with a policy for the server, whose agent reports dropped packets of annotated pods.
func newDropRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.config.Cache.DropLog = cache.DropLogAnnotated
	r.config.HealthAddress, r.config.MetricsAddress = cluster.LoopbackAddress(), cluster.LoopbackAddress()
	r.Runtime.Set(cluster.Sandbox{
		ID: "s1", UID: "server", Namespace: "ns", Name: "server", CreatedAt: 1, Info: cluster.InfoOf(node.PathOf(r.Hosts["server"])),
	})
	if err := r.Runtime.Start(); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestDropLog: the agent reports the dropped packets of a pod while an annotation asks for it, in its log, to followers and in
// a metric. It also reports the packets that a policy in audit mode would drop.
func TestDropLog(t *testing.T) {
	defer func(interval time.Duration) { dropCountsInterval = interval }(dropCountsInterval)
	dropCountsInterval = 100 * time.Millisecond
	r := newDropRig(t)
	r.Load(node.Cluster + node.Policy)
	log := &node.Log{}
	stop := r.startWith(log.Logger())
	defer stop() // before the interval is set back
	r.Becomes("enforced", true, false)
	all, others := follow(t, r.config.HealthAddress, drops.Filter{}), follow(t, r.config.HealthAddress, drops.Filter{Namespace: "ns", Pod: "x"})
	dropped := func() { r.Reaches("stranger", 100*time.Millisecond) }
	dropped()
	time.Sleep(200 * time.Millisecond)
	if all.has("10.9.0.3", drops.Dropped) {
		t.Error("a packet of a pod without the annotation is reported")
	}

	r.Load(logged("true"))
	await.That(t, "a dropped packet", func() bool { dropped(); return all.has("10.9.0.3", drops.Dropped) })
	said := log.Take(1000)
	if !strings.Contains(said, `"msg"="Packet dropped" "pod"="ns/server"`) || !strings.Contains(said, `"policies"="ns/p"`) {
		t.Errorf("the packet is not in the log:\n%s", said)
	}
	if !r.Reaches("friend", 10*time.Second) {
		t.Error("the friend does not get through")
	}
	metric := func(verdict string) bool {
		_, page := node.Get(t, "http://"+r.config.MetricsAddress+"/metrics")
		return strings.Contains(page, metricsPrefix+`pod_dropped_packets_total{direction="ingress",namespace="ns",pod="server",verdict="`+verdict+`"}`)
	}
	await.That(t, "the count of dropped packets", func() bool { return metric("dropped") })

	r.Load(inMode(logged("false"), "audit"))
	await.That(t, "a packet that passes in audit mode, and is reported", func() bool {
		return r.Reaches("stranger", time.Second) && all.has("10.9.0.3", drops.Audited)
	})
	await.That(t, "the count of audited packets", func() bool { return metric("audited") })
	if all.has("10.9.0.2", drops.Audited) {
		t.Error("an allowed packet is reported")
	}
	if len(others.seen) > 0 {
		t.Errorf("packets of another pod: %v", others.seen)
	}
	r.Load(inMode(logged("false"), "enforce"))
	r.Becomes("enforced", true, false)
}

// TestDropLogOfNamespace: an annotation on the namespace counts for its pods, unless theirs says otherwise. A wrong value has no
// effect, and an Event.
func TestDropLogOfNamespace(t *testing.T) {
	r := newDropRig(t)
	namespace := "\n---\n{apiVersion: v1, kind: Namespace, metadata: {name: ns, uid: ns, annotations: {multi-networkpolicy/drop-log: 'VALUE'}}}\n"
	annotate := func(value string) string { return strings.Replace(namespace, "VALUE", value, 1) }
	r.Load(node.Cluster + node.Policy + annotate("true"))
	r.start()
	r.Becomes("enforced", true, false)
	logs := func() bool {
		out, err := nft.Run(r.Hosts["server"], "", "list", "table", "inet", "multi_networkpolicy")
		if err != nil {
			t.Fatalf("nft: %v: %s", err, out)
		}
		return strings.Contains(out, `log prefix "drop ingress-net1" group 10349`)
	}
	await.That(t, "a rule that reports", logs)
	r.Load(logged("false") + annotate("true"))
	await.That(t, "no rule that reports, by the annotation of the pod", func() bool { return !logs() })
	r.Load(logged("yes") + annotate("true"))
	await.That(t, "a rule that reports: a wrong value counts as none", logs)
	r.Load(logged("yes") + annotate("no"))
	await.That(t, "no rule that reports", func() bool { return !logs() })
}

// TestDropLogGroupTaken: a process of the pod that has taken the group costs the pod its reports and nothing else, and the agent
// takes the group when the process has ended.
func TestDropLogGroupTaken(t *testing.T) {
	defer func(pause time.Duration) { dropRetry = pause }(dropRetry)
	dropRetry = time.Second
	r := newDropRig(t)
	other, err := nflog.Open(r.Hosts["server"].NetNS(), cache.DropGroup)
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- other.Run(ctx, func(nflog.Packet) {}) }()
	r.Load(logged("true"))
	log := &node.Log{}
	stop := r.startWith(log.Logger())
	defer stop() // before the pause is set back
	r.Becomes("enforced", true, false)
	said := ""
	await.That(t, "the reason is told", func() bool {
		said += log.Take(1000)
		return strings.Contains(said, "cannot be received") && strings.Contains(said, nflog.ErrBusy.Error())
	})
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	all := follow(t, r.config.HealthAddress, drops.Filter{Namespace: "ns"})
	await.That(t, "a dropped packet", func() bool { r.Reaches("stranger", 100*time.Millisecond); return all.has("10.9.0.3", drops.Dropped) })
}
