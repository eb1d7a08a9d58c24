package informers_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// A snapshot has all pages of a list, and the problems of each object. An object that cannot be decoded is left out.
func TestSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newServer(t, policies)
		sink := newSink()
		var found []string
		done := make(chan error)
		go func() {
			done <- informers.Snapshot(t.Context(), api.source(t), sink, func(kind string, key cache.Key, problems []policy.Problem) {
				found = append(found, fmt.Sprintf("%s %s %s", kind, key, problems[0].Field))
			})
		}()
		page := listOf(policies, "1", object(policies, "a", 1, `"spec":5`), "null")
		api.next(t, policies).answer(http.StatusOK, strings.Replace(page, `"metadata":{`, `"metadata":{"continue":"more",`, 1))
		c := api.next(t, policies)
		if c.query("continue") != "more" {
			t.Errorf("asked for %s", c.r.URL)
		}
		c.list("1", object(policies, "b", 1))
		if err := <-done; err != nil {
			t.Error(err)
		}
		sink.holds(t, "policy ns/a = [ns/net]", "policy ns/b = [ns/net]")
		if want := []string{"MultiNetworkPolicy ns/a spec", "MultiNetworkPolicy / metadata"}; !slices.Equal(found, want) {
			t.Errorf("found %q, want %q", found, want)
		}
	})
}

// A snapshot of a source that fails is an error that names the kind.
func TestSnapshotFails(t *testing.T) {
	for name, fail := range badAnswers {
		if name == "never answers" {
			continue // the caller's context decides how long to wait
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := newServer(t, policies)
				go func() {
					for {
						select {
						case c := <-api.calls[policies]:
							go fail(c)
						case <-t.Context().Done():
							return
						}
					}
				}()
				err := informers.Snapshot(klog.NewContext(t.Context(), logr.Discard()), api.source(t), newSink(), nil)
				if err == nil || !strings.Contains(err.Error(), "list objects of kind MultiNetworkPolicy") {
					t.Errorf("error %v", err)
				}
			})
		})
	}
}
