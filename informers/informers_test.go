package informers_test

import (
	"testing"

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
