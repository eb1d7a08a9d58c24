package sandbox

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// A list has the sandboxes that policies may apply to, sorted by pod. A sandbox that the runtime cannot describe has an
// error, and fails no other.
func TestList(t *testing.T) {
	n := newNode(t, containerd)
	host := n.sandbox("s1", "host", 1)
	host.HostNetwork = true
	ended := n.sandbox("s2", "ended", 1)
	ended.Info = map[string]string{"info": `{"netNamespaceClosed":true}`}
	old := n.sandbox("s3", "old", 1)
	old.NotReady = true
	broken := n.sandbox("s4", "broken", 1)
	broken.Err = errors.New("shim is stuck")
	kata := n.sandbox("s6", "web", 2)
	kata.Handler = "kata"
	n.runtime.Set(host, ended, old, kata, broken, n.sandbox("s5", "web", 1))
	n.start()
	list, err := List(t.Context(), "/"+containerd, n.root)
	if err != nil || len(list) != 3 {
		t.Fatalf("got %+v, %v", list, err)
	}
	for i, want := range []struct{ id, pod, netNS, handler string }{{"s4", "broken", "", ""}, {"s5", "web", "s5", ""}, {"s6", "web", "s6", "kata"}} {
		if want.netNS != "" {
			want.netNS = filepath.Join(n.root, "run/netns", want.netNS)
		}
		sandbox := cache.Sandbox{ID: want.id, Pod: cache.Key{Namespace: "ns", Name: want.pod}, NetNS: want.netNS, Handler: want.handler}
		if got := list[i]; got.Sandbox != sandbox || (got.Err == nil) != (want.netNS != "") {
			t.Errorf("%d: got %+v, want %+v", i, got, want)
		}
	}
	if _, err := List(t.Context(), "/run/other.sock", n.root); !errors.Is(err, errNoRuntime) {
		t.Errorf("without a runtime: %v", err)
	}
}
