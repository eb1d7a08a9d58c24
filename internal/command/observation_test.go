package command

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/testcluster"
)

// freeAddress is a loopback address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// The agent as its command line starts it, asked over loopback: not ready before everything is known and tried, silent
// when nothing happens, one line a change, and gone when it ends.
func TestObservation(t *testing.T) {
	r := newRig(t)
	r.load(agentCluster + agentPolicy)
	r.runtime.Set(testcluster.Sandbox{
		ID: "s1", UID: "server", Namespace: "ns", Name: "server", CreatedAt: time.Now().Add(time.Minute).UnixNano(),
		Info: testcluster.InfoOf(r.hosts["server"].NetNS()),
	})
	r.agent.endpoints = endpointOptions{metrics: freeAddress(t), health: freeAddress(t), profiles: true}
	metrics, health := "http://"+r.agent.endpoints.metrics, "http://"+r.agent.endpoints.health
	var lines atomic.Int32
	log := funcr.New(func(_, line string) { lines.Add(1); t.Log(line) }, funcr.Options{})
	ctx, cancel := context.WithCancel(logr.NewContext(context.Background(), log))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.agent.run(ctx) }()

	eventually(t, "livez", func() bool { code, _ := get(t, health+"/livez"); return code == http.StatusOK })
	if code, body := get(t, health+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "sandboxes") {
		t.Errorf("readyz without a runtime: %d, %q", code, body)
	}
	eventually(t, "the runtime is missed", func() bool { // on a busy machine after that
		_, page := get(t, metrics+"/metrics")
		return strings.Contains(page, "\n"+metricsPrefix+`watch_down{source="Sandbox"} 1`)
	})
	if err := r.runtime.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "readyz", func() bool { code, _ := get(t, health+"/readyz"); return code == http.StatusOK })
	if !r.reaches("friend", 10*time.Second) || r.reaches("stranger", 300*time.Millisecond) {
		t.Error("ready, and not enforced")
	}
	_, page := get(t, metrics+"/metrics")
	for _, want := range []string{
		"pods_selected 1\n", `policies{state="all"} 1`, `policies{state="active"} 1`, `policies{state="invalid"} 1`,
		`pods_not_enforced{reason="no_sandbox"} 0`, "peer_groups 1\n", "peer_group_elements 1\n", "queue_depth 0\n",
		"sync_duration_seconds_count 1\n", "pod_start_duration_seconds_count 1\n", "read_backs_total 1\n",
		`cache_objects{kind="pod"} 2`, `watch_down{source="Sandbox"} 0`, `watch_outages_total{source="Sandbox"} 1`,
	} {
		if !strings.Contains(page, "\n"+metricsPrefix+want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(page, "\n"+metricsPrefix+"batches_total 0\n") {
		t.Error("no batches")
	}
	if code, _ := get(t, metrics+"/debug/pprof/cmdline"); code != http.StatusOK {
		t.Errorf("pprof: %d", code)
	}

	before := lines.Load()
	time.Sleep(1500 * time.Millisecond) // three audits and a poll of the runtime
	if n := lines.Load() - before; n != 0 {
		t.Errorf("%d lines while nothing happens", n)
	}
	changed := strings.ReplaceAll(agentCluster+agentPolicy, "app: friend}}}", "app: nobody}}}")
	r.load(strings.Replace(changed, "name: p, uid: p,", "name: p, uid: p, creationTimestamp: \""+time.Now().UTC().Format(time.RFC3339)+"\",", 1))
	r.becomes("changed", false, false)
	_, page = get(t, metrics+"/metrics")
	for _, want := range []string{"network_programming_duration_seconds_count 1\n", "sync_duration_seconds_count 2\n"} {
		if !strings.Contains(page, "\n"+metricsPrefix+want) {
			t.Errorf("no %q after a change", want)
		}
	}
	time.Sleep(600 * time.Millisecond)
	if n := lines.Load() - before; n != 1 {
		t.Errorf("%d lines for one change", n)
	}
	r.runtime.Stop()
	eventually(t, "the outage is told", func() bool {
		_, page := get(t, metrics+"/metrics")
		return strings.Contains(page, `watch_down{source="Sandbox"} 1`)
	})
	if code, _ := get(t, health+"/readyz"); code != http.StatusOK {
		t.Errorf("readyz in an outage: %d", code)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if code, _ := get(t, health+"/livez"); code != 0 {
		t.Errorf("livez after the end: %d", code)
	}
}

// Faults of the kernel, which real tables do not have on demand.
func TestProgress(t *testing.T) {
	s := newStage(t)
	m := newMetrics("v1")
	p := newProgress(m)
	s.agent = newReconciler(s, m.meter(s.openTable))
	s.agent.observer = p
	m.watch(cache.New(cache.Options{}), p)
	h := &health{progress: p}
	synced := false
	h.follow(func() []string {
		if synced {
			return nil
		}
		return []string{"everything"}
	})
	hold := make(chan any)
	s.busy["slow"] = hold
	s.set("slow", "s1", chains(1))
	s.set("bad", "s2", chains(1))
	s.failing("apply bad", &engine.ApplyError{Op: "apply", Err: &engine.MessageError{Op: "NEWRULE", Errno: unix.ENOENT}})
	if why := h.whyNotReady(); why != "waiting for everything" {
		t.Errorf("before: %q", why)
	}
	synced = true
	s.run()
	s.until("the kernel refused", func() bool { return testutil.ToFloat64(m.refused.WithLabelValues("ENOENT")) >= 2 })
	if why := h.whyNotReady(); why != "pods are not reconciled yet" {
		t.Errorf("while a pod was never tried: %q", why)
	}
	close(hold)
	s.until("ready, with a pod that fails", func() bool { return h.whyNotReady() == "" })
	b := p.backlog()
	// ENOENT of a message is fs.ErrNotExist too, and no namespace that is gone.
	if b.depth != 1 || b.age <= 0 || b.failing[reasonKernel] != 1 {
		t.Errorf("backlog %+v", b)
	}
	s.failing("apply bad", nil)
	s.settled()
	s.until("nothing is left", func() bool { b := p.backlog(); return b.depth == 0 && len(b.failing) == 0 })
	if n := testutil.CollectAndCount(m.syncs); n != 1 {
		t.Errorf("%d histograms", n)
	}
	p.since[key("slow")] = time.Now().Add(-2 * stuckAfter)
	if why := h.whyNotAlive(); !strings.Contains(why, "ns/slow") {
		t.Errorf("a worker hangs: %q", why)
	}
}

// A pod whose network namespace cannot be opened is another case than one where the kernel refuses.
func TestGoneNamespace(t *testing.T) {
	p := newProgress(newMetrics(""))
	p.finished(key("web"), &engine.ApplyError{Op: "open", Err: os.ErrNotExist})
	if got := p.backlog().failing; got[reasonGone] != 1 {
		t.Error(got)
	}
}

// A bad address is one line and an end.
func TestBadAddress(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for _, tc := range []struct {
		flag, address string
		code          int
	}{
		{"metrics-bind-address", "nonsense", 2}, {"health-bind-address", "1.2.3.4:x:y", 2},
		{"health-bind-address", busy.Addr().String(), 1},
	} {
		var stdout, stderr bytes.Buffer
		args := []string{"--metrics-bind-address=", "--health-bind-address=", fmt.Sprintf("--%s=%s", tc.flag, tc.address)}
		code := Main("v1", args, &stdout, &stderr)
		line := stderr.String()
		if code != tc.code || strings.Count(line, "\n") != 1 || !strings.Contains(line, "--"+tc.flag) || stdout.Len() > 0 {
			t.Errorf("%s: code %d, %q", tc.address, code, line)
		}
	}
}
