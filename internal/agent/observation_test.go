package agent

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// The agent as its command line starts it, asked over loopback: not ready before everything is known and tried, silent
// when nothing happens, one line a change, and gone when it ends.
func TestObservation(t *testing.T) {
	r := newRig(t)
	r.Load(node.Cluster + node.Policy)
	r.Runtime.Set(cluster.Sandbox{
		ID: "s1", UID: "server", Namespace: "ns", Name: "server", CreatedAt: time.Now().Add(time.Minute).UnixNano(),
		Info: cluster.InfoOf(node.PathOf(r.Hosts["server"])),
	})
	r.config.MetricsAddress, r.config.HealthAddress, r.config.Profiles = cluster.LoopbackAddress(), cluster.LoopbackAddress(), true
	metrics, health := "http://"+r.config.MetricsAddress, "http://"+r.config.HealthAddress
	var lines atomic.Int32
	log := funcr.New(func(_, line string) { lines.Add(1); t.Log(line) }, funcr.Options{})
	stop := r.startWith(log)

	await.That(t, "livez", func() bool { code, _ := node.Get(t, health+"/livez"); return code == http.StatusOK })
	if code, body := node.Get(t, health+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "sandboxes") {
		t.Errorf("readyz without a runtime: %d, %q", code, body)
	}
	await.That(t, "the runtime is missed", func() bool { // on a busy machine after that
		_, page := node.Get(t, metrics+"/metrics")
		return strings.Contains(page, "\n"+metricsPrefix+`watch_down{source="Sandbox"} 1`)
	})
	if err := r.Runtime.Start(); err != nil {
		t.Fatal(err)
	}
	await.That(t, "readyz", func() bool { code, _ := node.Get(t, health+"/readyz"); return code == http.StatusOK })
	if !r.Reaches("friend", 10*time.Second) || r.Reaches("stranger", 300*time.Millisecond) {
		t.Error("ready, and not enforced")
	}
	_, page := node.Get(t, metrics+"/metrics")
	for _, want := range []string{
		"pods_selected 1\n", `policies{state="all"} 1`, `policies{state="active"} 1`, `policies{state="invalid"} 1`,
		`pods_not_enforced{reason="no_sandbox"} 0`, "peer_groups 1\n", "peer_group_elements 1\n", "queue_depth 0\n",
		"sync_duration_seconds_count 1\n", "pod_start_duration_seconds_count 1\n", "read_backs_total 2\n",
		`cache_objects{kind="pod"} 2`, `watch_down{source="Sandbox"} 0`, `watch_outages_total{source="Sandbox"} 1`,
	} {
		if !strings.Contains(page, "\n"+metricsPrefix+want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(page, "\n"+metricsPrefix+"batches_total 0\n") {
		t.Error("no batches")
	}
	if code, _ := node.Get(t, metrics+"/debug/pprof/cmdline"); code != http.StatusOK {
		t.Errorf("pprof: %d", code)
	}

	before := lines.Load()
	time.Sleep(1500 * time.Millisecond) // three audits and a poll of the runtime
	if n := lines.Load() - before; n != 0 {
		t.Errorf("%d lines while nothing happens", n)
	}
	changed := strings.ReplaceAll(node.Cluster+node.Policy, "app: friend}}}", "app: nobody}}}")
	r.Load(strings.Replace(changed, "name: p, uid: p,", "name: p, uid: p, creationTimestamp: \""+time.Now().UTC().Format(time.RFC3339)+"\",", 1))
	r.Becomes("changed", false, false)
	_, page = node.Get(t, metrics+"/metrics")
	for _, want := range []string{"network_programming_duration_seconds_count 1\n", "sync_duration_seconds_count 2\n"} {
		if !strings.Contains(page, "\n"+metricsPrefix+want) {
			t.Errorf("no %q after a change", want)
		}
	}
	time.Sleep(600 * time.Millisecond)
	if n := lines.Load() - before; n != 1 {
		t.Errorf("%d lines for one change", n)
	}
	r.Runtime.Stop()
	await.That(t, "the outage is told", func() bool {
		_, page := node.Get(t, metrics+"/metrics")
		return strings.Contains(page, `watch_down{source="Sandbox"} 1`)
	})
	if code, _ := node.Get(t, health+"/readyz"); code != http.StatusOK {
		t.Errorf("readyz in an outage: %d", code)
	}
	stop()
	if code, _ := node.Get(t, health+"/livez"); code != 0 {
		t.Errorf("livez after the end: %d", code)
	}
}

// The way of two pods: the kernel takes the rules of the first pod, and refuses the rules of the second pod for a while.
func TestProgress(t *testing.T) {
	m := newMetrics("v1")
	p := newProgress(m)
	h := &health{progress: p}
	missing := []string{"everything"}
	stalled := time.Duration(0)
	h.follow(func() []string { return missing }, func() time.Duration { return stalled })
	good, bad := cache.PodID{Key: cache.Key{Namespace: "ns", Name: "good"}}, cache.PodID{Key: cache.Key{Namespace: "ns", Name: "bad"}}
	refused := &engine.ApplyError{Op: "apply", Err: &nfnl.MessageError{Op: "NEWRULE", Errno: unix.ENOENT}}

	p.Queued([]cache.PodID{good, bad}, time.Now())
	if why := h.whyNotReady(); why != "waiting for everything" {
		t.Errorf("before: %q", why)
	}
	missing = nil
	p.Started(bad)
	p.Finished(bad, refused)
	if why := h.whyNotReady(); why != "pods are not reconciled yet" {
		t.Errorf("while a pod was never tried: %q", why)
	}
	p.Started(good)
	p.Applied(cache.Target{Pod: good})
	p.Finished(good, nil)
	if why := h.whyNotReady(); why != "" {
		t.Errorf("with a pod that fails: %q", why)
	}
	// ENOENT of a message is fs.ErrNotExist too, and no namespace that is gone.
	if b := p.backlog(); b.depth != 1 || b.age <= 0 || b.failing[reasonKernel] != 1 {
		t.Errorf("backlog %+v", b)
	}
	p.Started(bad)
	p.Applied(cache.Target{Pod: bad})
	p.Finished(bad, nil)
	if b := p.backlog(); b.depth != 0 || b.age != 0 || b.failing[reasonKernel] != 0 {
		t.Errorf("backlog %+v", b)
	}
	if n := testutil.CollectAndCount(m.syncs); n != 1 {
		t.Errorf("%d histograms", n)
	}
	if why := h.whyNotAlive(); why != "" {
		t.Errorf("not alive: %q", why)
	}
	stalled = 2 * stalledAfter
	if why := h.whyNotAlive(); !strings.Contains(why, "waited for a worker") {
		t.Errorf("no worker takes pods: %q", why)
	}
}

// A pod that fails for hours costs no memory for what happens to other pods meanwhile.
func TestBacklogStaysSmall(t *testing.T) {
	p := newProgress(newMetrics(""))
	bad := cache.PodID{UID: "bad"}
	p.Queued([]cache.PodID{bad}, time.Now())
	for i := range 100_000 {
		pod := cache.PodID{UID: types.UID(fmt.Sprint(i))}
		p.Queued([]cache.PodID{pod}, time.Now())
		p.Started(pod)
		p.Finished(pod, nil)
	}
	if b := p.backlog(); b.depth != 1 || b.age <= 0 || len(p.order) > 2000 {
		t.Errorf("%+v, %d changes are kept", b, len(p.order))
	}
}

// A network namespace that cannot be opened is reported differently from a refusal of the kernel.
func TestGoneNamespace(t *testing.T) {
	p := newProgress(newMetrics(""))
	p.Finished(cache.PodID{}, &engine.ApplyError{Op: "open", Err: os.ErrNotExist})
	if got := p.backlog().failing; got[reasonGone] != 1 {
		t.Error(got)
	}
}
