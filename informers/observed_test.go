package informers_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers/internal/await"
)

// An API server that is away at the start, or goes away later, is tried until it is back. Meanwhile everything stays as it
// was; the objects that were deleted meanwhile go.
func TestAPIServerRestarts(t *testing.T) {
	f := informers.NewFiles()
	load(t, f, policyDoc("p", "net", "{}"), podDoc("a", "here", "1"), podDoc("b", "here", "1"))
	source, api := apiSource(t, f, true)
	api.Stop()
	s := start(t, source)
	await.That(t, "the outage is logged", func() bool { return len(s.log.With("failed")) == 4 })
	if s.in.HasSynced() {
		t.Error("in sync with an API server that is away")
	}
	if err := api.Start(); err != nil {
		t.Fatal(err)
	}
	s.synced(t)
	want := []string{"ns /ns = ", "policy ns/p = [ns/net]", "pod ns/a = 1", "pod ns/b = 1"}
	s.sink.holds(t, want...)
	await.That(t, "the end of the outage is logged", func() bool { return len(s.log.With("works again")) == 4 })

	api.Stop()
	await.That(t, "the second outage is logged", func() bool { return len(s.log.With("failed")) == 8 })
	load(t, f, policyDoc("p", "net", "{}"), podDoc("a", "here", "2"))
	s.sink.holds(t, want...)
	if err := api.Start(); err != nil {
		t.Fatal(err)
	}
	s.sink.becomes(t, "ns /ns = ", "policy ns/p = [ns/net]", "pod ns/a = 2")
}

// badAnswers are answers to lists and watches that say nothing about objects.
var badAnswers = map[string]func(*call){
	"hangs up":              (*call).cut,
	"never answers":         func(c *call) { <-c.r.Context().Done(); c.cut() },
	"410":                   func(c *call) { c.answer(http.StatusGone, statusOf(410, "Expired")) },
	"500":                   func(c *call) { c.answer(http.StatusInternalServerError, statusOf(500, "InternalError")) },
	"502 of a proxy":        func(c *call) { c.w.Header().Set("Content-Type", "text/html"); c.answer(http.StatusBadGateway, "<html>") },
	"200 of a proxy":        func(c *call) { c.answer(http.StatusOK, "<html>") },
	"empty":                 func(c *call) { c.answer(http.StatusOK, "") },
	"an object":             func(c *call) { c.answer(http.StatusOK, "{}") },
	"a list without a version": func(c *call) { c.answer(http.StatusOK, fmt.Sprintf(`{"kind":"%sList","apiVersion":"v1","items":[]}`, kindOf[c.resource])) },
	"cut in a list": func(c *call) { c.send(`{"kind":"List","apiVersion":"v1","items":[{"met`); c.cut() },
	"429": func(c *call) {
		c.w.Header().Set("Retry-After", "1")
		c.answer(http.StatusTooManyRequests, statusOf(429, "TooManyRequests"))
	},
}

// However an API server fails: what is in force stays, the failure is told once, and so is its end.
func TestOutages(t *testing.T) {
	for _, resource := range []string{policies, pods} {
		for name, fail := range badAnswers {
			t.Run(resource+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testOutage(t, resource, fail) })
			})
		}
	}
}

func testOutage(t *testing.T, resource string, fail func(*call)) {
	api := newServer(t, resource)
	s := start(t, api.source(t))
	kind := kindOf[resource]
	check := func(what string, outages ...bool) {
		t.Helper()
		synctest.Wait()
		if got := s.observer.outagesOf(kind); !slices.Equal(got, outages) {
			t.Errorf("%s: outages %v, want %v", what, got, outages)
		}
		if lines := s.log.With("failed", kind); len(lines) != (len(outages)+1)/2 {
			t.Errorf("%s: logged %q", what, lines)
		}
		if lines := s.log.With("works again", kind); len(lines) != len(outages)/2 {
			t.Errorf("%s: logged %q", what, lines)
		}
	}
	failFor := func(d time.Duration) {
		t.Helper()
		calls := 0
		for end := time.After(d); ; calls++ {
			select {
			case c := <-api.calls[resource]:
				go fail(c)
				continue
			case <-end:
			}
			break
		}
		if calls < 3 || calls > 500 {
			t.Errorf("%d requests in %s", calls, d)
		}
	}
	failFor(10 * time.Minute)
	check("at the start", true)
	if s.in.HasSynced() {
		t.Error("in sync without an answer")
	}
	watch := api.serve(t, resource, "1", object(resource, "a", 1), object(resource, "b", 1))
	held := map[string]string{policies: "policy ns/%s = [ns/net]", pods: "pod ns/%s = "}[resource]
	s.sink.becomes(t, fmt.Sprintf(held, "a"), fmt.Sprintf(held, "b"))
	check("then", true, false)
	s.synced(t)

	watch.cut()
	failFor(10 * time.Minute)
	check("later", true, false, true)
	s.sink.holds(t, fmt.Sprintf(held, "a"), fmt.Sprintf(held, "b"))
	api.serve(t, resource, "5", object(resource, "a", 1), object(resource, "c", 5))
	s.sink.becomes(t, fmt.Sprintf(held, "a"), fmt.Sprintf(held, "c"))
	check("in the end", true, false, true, false)
}
