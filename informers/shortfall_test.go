package informers_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
)

// A shortfall is reported, once for each reason, when two checks in a row find it. Its end is logged.
func TestShortfalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var now []cache.Shortfall
		list := func() []cache.Shortfall { mu.Lock(); defer mu.Unlock(); return now }
		shortfall := func(reason policy.Reason, messages ...string) cache.Shortfall {
			s := cache.Shortfall{Policy: cache.Key{Namespace: "ns", Name: "p"}, UID: "u", Reason: reason}
			for _, m := range messages {
				s.Problems = append(s.Problems, policy.Problem{Field: "spec", Message: m})
			}
			return s
		}
		var events warnings
		var log await.Log
		go informers.ReportShortfalls(logr.NewContext(t.Context(), log.Logger()), &events, list, time.Minute)
		time.Sleep(time.Second)
		for i, step := range []struct {
			now     []cache.Shortfall
			reports []string
			gone    int
		}{
			{[]cache.Shortfall{shortfall("Port", "a", "b")}, nil, 0},
			{[]cache.Shortfall{shortfall("Port", "a"), shortfall("Plugin", "c")}, []string{"Port: spec: a"}, 0},
			{[]cache.Shortfall{shortfall("Port", "a"), shortfall("Plugin", "c")}, []string{"Plugin: spec: c"}, 0},
			{[]cache.Shortfall{shortfall("Port", "a")}, nil, 1},
			{nil, nil, 2},
			{[]cache.Shortfall{shortfall("Port", "a")}, nil, 2},
			{[]cache.Shortfall{shortfall("Port", "a")}, []string{"Port: spec: a"}, 2},
		} {
			mu.Lock()
			now = step.now
			mu.Unlock()
			time.Sleep(time.Minute)
			for j := range step.reports {
				step.reports[j] = "MultiNetworkPolicy ns/p " + step.reports[j]
			}
			if got := events.take(); !slices.Equal(got, step.reports) {
				t.Errorf("step %d: reported %q, want %q", i, got, step.reports)
			}
			if lines := log.With("The problems are gone"); len(lines) != step.gone {
				t.Errorf("step %d: logged %q", i, lines)
			}
		}
	})
}
