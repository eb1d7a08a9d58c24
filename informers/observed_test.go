package informers_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
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

// badAnswers are answers to lists and watches from which a client learns nothing about objects.
var badAnswers = map[string]func(*call){
	"hangs up":      (*call).cut,
	"never answers": func(c *call) { <-c.r.Context().Done(); c.cut() },
	"410":           func(c *call) { c.answer(http.StatusGone, statusOf(410, "Expired")) },
	"500":           func(c *call) { c.answer(http.StatusInternalServerError, statusOf(500, "InternalError")) },
	"502 of a proxy": func(c *call) {
		c.header("Content-Type", "text/html")
		c.answer(http.StatusBadGateway, "<html>")
	},
	"200 of a proxy":  func(c *call) { c.answer(http.StatusOK, "<html>") },
	"empty":           func(c *call) { c.answer(http.StatusOK, "") },
	"an empty object": func(c *call) { c.answer(http.StatusOK, "{}") },
	"an object":       func(c *call) { c.answer(http.StatusOK, object(c.resource, "x", 1)) },
	"a list without a version": func(c *call) {
		c.answer(http.StatusOK, fmt.Sprintf(`{"kind":"%sList","apiVersion":"v1","items":[]}`, kindOf[c.resource]))
	},
	"500, or hangs up": func(c *call) {
		if time.Now().Minute()%2 == 0 {
			c.answer(http.StatusInternalServerError, statusOf(500, "InternalError"))
		} else {
			c.cut()
		}
	},
	"cut in a list": func(c *call) { c.send(`{"kind":"List","apiVersion":"v1","items":[{"met`); c.cut() },
	"429": func(c *call) {
		c.header("Retry-After", "1")
		c.answer(http.StatusTooManyRequests, statusOf(429, "TooManyRequests"))
	},
}

// However an API server fails: the sink keeps its objects, and the failure and its end are reported once.
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
		end := time.After(d)
		for calls := 0; ; calls++ {
			select {
			case c := <-api.calls[resource]:
				go fail(c)
			case <-end:
				if calls < 3 {
					t.Errorf("%d requests in %s", calls, d)
				}
				return
			}
			if calls > 1000 {
				t.Fatalf("too many requests in %s", d)
			}
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

// A server that lists and refuses to watch is a single outage: a list that works does not end the outage.
func TestWatchesFailAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newServer(t, policies)
		s := start(t, api.source(t))
		for lists := 0; lists < 10; {
			if c := api.next(t, policies); c.isWatch() {
				c.answer(http.StatusServiceUnavailable, statusOf(503, "ServiceUnavailable"))
			} else {
				lists++
				c.list("1", object(policies, fmt.Sprint("p", lists), 1))
			}
		}
		s.sink.becomes(t, "policy ns/p10 = [ns/net]")
		if got := s.observer.outagesOf(informers.KindPolicy); !slices.Equal(got, []bool{true}) {
			t.Errorf("outages %v", got)
		}
	})
}

// A watch that is open and brings neither events nor bookmarks is made anew. Its successor proves itself by an event.
func TestSilentWatch(t *testing.T) {
	for _, resource := range []string{policies, pods} {
		t.Run(resource, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := newServer(t, resource)
				s := start(t, api.source(t))
				watch := api.serve(t, resource, "1", object(resource, "a", 1))
				s.synced(t)
				for range 30 { // bookmarks are enough
					time.Sleep(time.Minute)
					watch.bookmark("2")
				}
				for range 3 {
					begin := time.Now()
					watch = api.next(t, resource)
					if d := time.Since(begin); d < 3*time.Minute || d > 4*time.Minute || watch.query("resourceVersion") != "2" {
						t.Errorf("after %s a watch from version %s", d, watch.query("resourceVersion"))
					}
					watch.send("")
				}
				if got := s.observer.outagesOf(kindOf[resource]); !slices.Equal(got, []bool{true}) {
					t.Errorf("outages %v", got)
				}
				watch.send(event("ADDED", object(resource, "b", 3)))
				synctest.Wait()
				if got := s.observer.outagesOf(kindOf[resource]); !slices.Equal(got, []bool{true, false}) {
					t.Errorf("outages %v", got)
				}
				if lines := s.log.With("failed", "the watch is open, but silent"); len(lines) != 1 {
					t.Errorf("logged %q", lines)
				}
				if got := len(s.sink.state()); got != 2 {
					t.Errorf("%d objects", got)
				}
			})
		})
	}
}

// The log names the silence of a server that never answers a watch, not the context that ends the request.
func TestUnansweredWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newServer(t, policies)
		s := start(t, api.source(t))
		api.next(t, policies)
		time.Sleep(time.Minute)
		if lines := s.log.With("failed", "silent"); len(lines) != 1 {
			t.Errorf("logged %q", s.log.With(""))
		}
	})
}

// Files send no bookmarks, and need none.
func TestSilentFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := informers.NewFiles()
		s := start(t, f.Source(settings))
		s.synced(t)
		time.Sleep(24 * time.Hour)
		if lines := s.log.With(""); len(lines) > 0 {
			t.Errorf("logged %q", lines)
		}
		load(t, f, nsDoc("1"))
		s.sink.becomes(t, "ns /ns = 1")
	})
}

// Whatever ends a watch: the next list brings the objects up to date, and all other watches go on.
func TestBrokenWatch(t *testing.T) {
	for name, tc := range map[string]struct {
		text    string
		outages []bool
	}{
		"410":                 {event("ERROR", statusOf(410, "Expired")), nil},
		"500":                 {event("ERROR", statusOf(500, "InternalError")), []bool{true, false}},
		"429":                 {event("ERROR", statusOf(429, "TooManyRequests")), []bool{true, false}},
		"null":                {event("MODIFIED", "null"), []bool{true, false}},
		"no object":           {`{"type":"DELETED"}`, []bool{true, false}},
		"no version":          {event("MODIFIED", `{"metadata":{"name":"b"}}`), []bool{true, false}},
		"an unknown type":     {event("RENAMED", object(policies, "b", 2)), []bool{true, false}},
		"a number":            {"5", []bool{true, false}},
		"no JSON":             {"<html>", []bool{true, false}},
		"an incomplete event": {event("MODIFIED", object(policies, "b", 2))[:30], nil},
		"an end":              {"", nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := newServer(t, policies)
				s := start(t, api.source(t))
				watch := api.serve(t, policies, "1", object(policies, "a", 1), object(policies, "b", 1))
				s.sink.becomes(t, "policy ns/a = [ns/net]", "policy ns/b = [ns/net]")
				time.Sleep(10 * time.Second)
				watch.send(tc.text)
				watch.end()
				synctest.Wait()
				s.sink.holds(t, "policy ns/a = [ns/net]", "policy ns/b = [ns/net]")
				api.serve(t, policies, "5", object(policies, "b", 2), object(policies, "c", 5))
				s.sink.becomes(t, "policy ns/b = [ns/net]", "policy ns/c = [ns/net]")
				if got := s.observer.outagesOf(informers.KindPolicy); !slices.Equal(got, tc.outages) {
					t.Errorf("outages %v, want %v", got, tc.outages)
				}
			})
		})
	}
}
