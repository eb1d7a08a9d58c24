package informers_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
)

// The sink has the first lists when HasSynced says so, and every change comes after, whether the source is files or an API
// server, with or without streams of initial events.
func TestEverySource(t *testing.T) {
	for name, source := range map[string]func(*testing.T, *informers.Files) informers.Source{
		"files": func(_ *testing.T, f *informers.Files) informers.Source { return f.Source(settings) },
		"API server": func(t *testing.T, f *informers.Files) informers.Source {
			source, _ := apiSource(t, f, true)
			return source
		},
		"older API server": func(t *testing.T, f *informers.Files) informers.Source {
			source, _ := apiSource(t, f, false)
			return source
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := informers.NewFiles()
			load(t, f, nsDoc("1"), nadDoc("a"), policyDoc("p", "net", "{}"), podDoc("a", "here", "1"), podDoc("b", "there", "1"))
			s := start(t, source(t, f))
			s.synced(t)
			s.sink.holds(t, "ns /ns = 1", "nad ns/net = a", "policy ns/p = [ns/net]", "pod ns/a = 1", "pod ns/b = 1")
			for object, isLocal := range map[string]bool{"Pod ns/a": true, "Pod ns/b": false, "MultiNetworkPolicy ns/p": false} {
				if r, _ := s.observer.last(object); r == nil || r.IsLocal != isLocal || r.UID == "" || r.Version == "" {
					t.Errorf("observed of %s: %+v", object, r)
				}
			}

			load(t, f, nsDoc("2"), nadDoc("b"), policyDoc("q", "other/net", "{}"), podDoc("a", "here", "2"))
			s.sink.becomes(t, "ns /ns = 2", "nad ns/net = b", "policy ns/q = [other/net]", "pod ns/a = 2")

			load(t, f)
			s.sink.becomes(t)
			for _, object := range []string{"Pod ns/a", "MultiNetworkPolicy ns/p", "Namespace /ns"} {
				if r, known := s.observer.last(object); r != nil || !known {
					t.Errorf("observed of %s, which is gone: %+v, %v", object, r, known)
				}
			}
			if found := s.log.With("fail"); len(found) > 0 {
				t.Errorf("nothing failed, but the log says %q", found)
			}
		})
	}
}

func apiSource(t *testing.T, f *informers.Files, streams bool) (informers.Source, *cluster.API) {
	t.Helper()
	api := newAPI(t, f, streams)
	source, err := informers.FromClients(api.Config(), settings)
	if err != nil {
		t.Fatal(err)
	}
	return source, api
}

func newAPI(t *testing.T, f *informers.Files, streams bool) *cluster.API {
	t.Helper()
	api, err := cluster.NewAPI(f, streams)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Stop)
	return api
}

// The informers read a policy again when the sink asks for it: by a list with a field selector, until an answer comes.
func TestRefetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newServer(t, policies)
		s := start(t, api.source(t))
		watch := api.serve(t, policies, "1", object(policies, "a", 1), object(policies, "b", 1))
		s.synced(t)
		s.sink.want("a", "b", "gone")
		watch.send(event("MODIFIED", object(policies, "b", 2)))
		next := func(name string) *call {
			t.Helper()
			c := api.next(t, policies)
			if c.isWatch() || !strings.HasSuffix(c.r.URL.Path, "/namespaces/ns/"+policies) || c.query("fieldSelector") != "metadata.name="+name {
				t.Errorf("asked for %s, want %s alone", c.r.URL, name)
			}
			return c
		}
		next("a").answer(http.StatusInternalServerError, statusOf(500, "InternalError"))
		next("a").answer(http.StatusOK, "{}")
		next("a").answer(http.StatusOK, "")
		next("a").list("2", object(policies, "a", 1))
		next("b").list("2", "null")
		next("gone").list("2")
		synctest.Wait()
		if got, want := s.sink.takeRestored(), []string{"ns/a 1"}; !slices.Equal(got, want) {
			t.Errorf("restored %q, want %q", got, want)
		}
		if lines := s.log.With("Reading a policy again failed"); len(lines) != 1 {
			t.Errorf("logged %q", lines)
		}
		s.sink.want("b")
		watch.send(event("DELETED", object(policies, "a", 3)))
		next("b").list("3", object(policies, "b", 2))
		synctest.Wait()
		if got, want := s.sink.takeRestored(), []string{"ns/b 2"}; !slices.Equal(got, want) {
			t.Errorf("restored %q, want %q", got, want)
		}
	})
}

// Files are read again like an API server, also for a policy that is gone.
func TestRefetchFromFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := informers.NewFiles()
		s := start(t, f.Source(settings))
		s.synced(t)
		s.sink.want("gone", "p")
		load(t, f, policyDoc("p", "net", "{}"))
		time.Sleep(time.Minute)
		if got := s.sink.takeRestored(); len(got) != 1 || !strings.HasPrefix(got[0], "ns/p ") {
			t.Errorf("restored %q", got)
		}
	})
}

// A policy whose rules the cache dropped gets them back. An answer of another version is ignored, since the watch brings it.
func TestRefetchIntoCache(t *testing.T) {
	const content = `{"ingress":[{"ports":[{"port":80}]}]}`
	const spec = `"spec":` + content
	for name, tc := range map[string]struct {
		answer  int // version
		limited int64
	}{
		"the same version": {1, 0},
		"a newer version":  {5, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				room := limits
				room.NamespaceItems = compiled("a", content).Items // room for a single policy
				state := cache.New(cache.Options{Limits: room})
				api := newServer(t, policies)
				s := startInto(t, api.source(t), state)
				watch := api.serve(t, policies, "1", object(policies, "a", 1, spec), object(policies, "b", 1, spec))
				s.synced(t)
				if n := state.Stats().LimitedPolicies; n != 1 {
					t.Fatalf("%d policies without rules", n)
				}
				watch.send(event("DELETED", object(policies, "a", 2, spec)))
				api.next(t, policies).list("5", object(policies, "b", tc.answer, spec))
				synctest.Wait()
				if n := state.Stats().LimitedPolicies; n != tc.limited {
					t.Errorf("%d policies without rules, want %d", n, tc.limited)
				}
				watch.send(event("MODIFIED", object(policies, "b", 5, spec)))
				synctest.Wait()
				if n := state.Stats().LimitedPolicies; n != 0 {
					t.Errorf("%d policies without rules in the end", n)
				}
			})
		})
	}
}
