package informers_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
)

// An object goes with its event or with the next list, whether it could be decoded or not. So do its reports: the same
// problem of an object that is created again is reported again.
func TestDeletions(t *testing.T) {
	for name, remove := range map[string]func(t *testing.T, api *server, watch *call, last string) *call{
		"event": func(_ *testing.T, _ *server, watch *call, last string) *call {
			watch.send(event("DELETED", last))
			return watch
		},
		"list": func(t *testing.T, api *server, watch *call, _ string) *call {
			watch.end()
			return api.serve(t, policies, "20")
		},
		"API server of another age": func(t *testing.T, api *server, watch *call, _ string) *call {
			api.isOld = true
			watch.end()
			return api.serve(t, policies, "20")
		},
	} {
		for _, bad := range badPolicies {
			t.Run(name+" "+bad.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					api := newServer(t, policies)
					s := start(t, api.source(t))
					watch := api.serve(t, policies, "2", bad.object(bad.name, 2))
					synctest.Wait()
					first := s.events.take()

					watch = remove(t, api, watch, bad.object(bad.name, 3))
					synctest.Wait()
					s.sink.holds(t)
					if r, known := s.observer.last("MultiNetworkPolicy ns/" + bad.name); bad.want != "" && (r != nil || !known) {
						t.Errorf("observed: %+v, %v", r, known)
					}
					watch.send(event("ADDED", bad.object(bad.name, 30)))
					synctest.Wait()
					if again := s.events.take(); !slices.Equal(first, again) {
						t.Errorf("reported %q, and then %q", first, again)
					}
				})
			})
		}
	}
}

// TestInitialEvents: the initial events of a watch reach the sink while they arrive. The feed is in sync, and removes what is gone,
// only at their end.
func TestInitialEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newServer(t, policies)
		s := start(t, api.source(t))
		watch := api.next(t, policies)
		if watch.query("sendInitialEvents") != "true" {
			t.Fatal("no watch with initial events")
		}
		has := func(names ...string) {
			t.Helper()
			synctest.Wait()
			var got []string
			for _, key := range s.sink.Policies() {
				got = append(got, key.Name)
			}
			if slices.Sort(got); !slices.Equal(got, names) {
				t.Errorf("the sink has %q, want %q", got, names)
			}
		}
		watch.send(event("ADDED", object(policies, "a", 1)))
		has("a")
		watch.send(event("ADDED", object(policies, "b", 2)))
		has("a", "b")
		if s.in.HasSynced() {
			t.Error("in sync before the end of the initial events")
		}
		watch.stream("2")
		has("a", "b")
		if !s.in.HasSynced() {
			t.Error("not in sync")
		}
		watch.send(event("MODIFIED", object(policies, "c", 3)))
		has("a", "b", "c")
		watch.end()
		for again := api.next(t, policies); ; again = api.next(t, policies) {
			if again.query("sendInitialEvents") != "true" {
				again.answer(http.StatusGone, statusOf(410, "Expired"))
				continue
			}
			again.send(event("ADDED", object(policies, "d", 9)))
			has("a", "b", "c", "d")
			again.stream("9", object(policies, "c", 8))
			has("c", "d")
			return
		}
	})
}

// The queue hears of a long list while the list is on its way into the sink.
func TestLongList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newServer(t, policies)
		s := start(t, api.source(t))
		synctest.Wait()
		before := s.notified.Load()
		var items []string
		for i := range 600 {
			items = append(items, object(policies, fmt.Sprint("p", i), 1))
		}
		api.serve(t, policies, "1", items...)
		synctest.Wait()
		if n := s.notified.Load() - before; n != 3 {
			t.Errorf("notified %d times", n)
		}
		if n := len(s.sink.Policies()); n != 600 {
			t.Errorf("%d policies", n)
		}
	})
}
