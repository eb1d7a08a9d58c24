package enforcement

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"
)

// newWorld returns a cache with a policy and the pod web, whose sandbox is known.
func newWorld() (*cache.Cache, cache.PodID) {
	c := cache.New(cache.Options{Node: model.Node, NetworkPlugins: []string{"macvlan"}})
	limits := policy.DefaultLimits()
	pod := func(o *corev1.Pod) cache.Pod { return cache.NewPod(o, model.Node, &limits) }
	c.UpsertNAD(cache.NewNAD(model.KeyOf("net"), `{"type": "macvlan"}`))
	c.UpsertPod(pod(model.NewPod("web", "", "net1 net 10.0.0.1")))
	c.UpsertPolicy(policy.Compile(policy.ObjectOf(model.NewPolicy("p", "net", `{ingress: []}`)), &limits))
	id, _ := c.LocalPod(model.KeyOf("web"))
	c.SetSandbox(id.UID, cache.Sandbox{ID: "s"})
	return c, id
}

// answerOf returns the lines of an answer.
func answerOf(t *testing.T, h *Handler, query string) []string {
	t.Helper()
	server := httptest.NewServer(h)
	defer server.Close()
	response, err := http.Get(server.URL + Path + query)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var b strings.Builder
	if err := response.Write(&b); err != nil {
		t.Fatal(err)
	}
	return strings.Split(b.String(), "\n")
}

// TestRecord follows a pod through success, failure and its end, and asks after each step.
func TestRecord(t *testing.T) {
	c, id := newWorld()
	known := func(pod cache.PodID) bool { _, known := c.IsSelected(pod); return known }
	r := NewRecord(known)
	var waits time.Time
	h := NewHandler(Handler{
		Node: "n", Version: "v", Cache: c, Record: r, NotReady: func() string { return "" },
		WaitsSince: func(cache.PodID) time.Time { return waits },
	})
	says := func(name, want string) {
		t.Helper()
		lines := answerOf(t, h, "?namespace=default&policy=p")
		for _, line := range lines {
			if strings.Contains(line, `"name":"web"`) {
				if !strings.Contains(line, want) {
					t.Errorf("%s: %s, want %s", name, line, want)
				}
				return
			}
		}
		t.Errorf("%s: the pod is missing: %q", name, lines)
	}
	says("before", `"state":"NotEnforced","reasons":[{"reason":"waiting"`)
	r.Finished(id, errors.New("refused"))
	says("failed before", `"state":"NotEnforced","reasons":[{"reason":"kernel_error","message":"refused; the agent retries, without success since `)
	says("failed before", `Z"}]}]}`)
	target, _ := c.Plan(id)
	r.Applied(target)
	r.Finished(id, nil)
	says("applied", `"state":"Enforced","since":"`)
	r.Finished(id, errors.New(strings.Repeat("x", 2*maxErrorBytes)))
	first := r.of(id).failure.since
	r.Finished(id, fmt.Errorf("open: %w", fs.ErrNotExist))
	says("failed", `"state":"NotEnforced","since":`)
	says("failed", `"reasons":[{"reason":"namespace_gone","message":"open: file does not exist; the agent retries, without success since `)
	if f := r.of(id).failure; !f.since.Equal(first) {
		t.Errorf("failed since %s, want %s", f.since, first)
	}
	r.Finished(id, nil)
	says("recovered", `"state":"Enforced"`)
	waits = time.Now().Add(-longWait / 2)
	says("a change waits", `"state":"Enforced"`)
	waits = time.Now().Add(-2 * longWait)
	says("a change waits for long", `"state":"NotEnforced","since":`)
	c.DeletePod(id.Key)
	r.Finished(id, nil)
	if len(r.pods) != 0 {
		t.Errorf("kept: %v", r.pods)
	}
	if f := failureOf(errors.New(strings.Repeat("x", 2*maxErrorBytes)), nil); len(f.message) > maxErrorBytes+len("…") {
		t.Errorf("a message of %d bytes", len(f.message))
	}
}

// TestOneAnswerAtATime: a client that asks while another answer is made waits, and a client that is
// gone keeps nobody waiting.
func TestOneAnswerAtATime(t *testing.T) {
	c, _ := newWorld()
	h := NewHandler(Handler{Cache: c, Record: NewRecord(nil), NotReady: func() string { return "" }, WaitsSince: func(cache.PodID) time.Time { return time.Time{} }})
	h.turn <- struct{}{} // an answer is being made
	server := httptest.NewServer(h)
	defer server.Close()
	client := &http.Client{Timeout: 100 * time.Millisecond}
	if response, err := client.Get(server.URL + Path); err == nil {
		response.Body.Close()
		t.Error("two answers at a time")
	}
	<-h.turn
	if lines := answerOf(t, h, ""); !strings.Contains(strings.Join(lines, ""), `{"pods":1}`) {
		t.Errorf("%q", lines)
	}
}

// BenchmarkRecord measures what a change costs while nobody asks.
func BenchmarkRecord(b *testing.B) {
	c, id := newWorld()
	r := NewRecord(func(pod cache.PodID) bool { _, known := c.IsSelected(pod); return known })
	target, _ := c.Plan(id)
	b.ReportAllocs()
	for b.Loop() {
		r.Applied(target)
		r.Finished(id, nil)
	}
}

// BenchmarkMemory reports the memory of the record for 110 pods.
func BenchmarkMemory(b *testing.B) {
	c, id := newWorld()
	target, _ := c.Plan(id)
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		r := NewRecord(nil)
		for i := range 110 {
			target.Pod.Name = fmt.Sprint("web-", i)
			r.Applied(target)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(r)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc), "B/110pods")
}
