package reconciler

import (
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// TestBridgeBeforeFirstTables: the first tables of a sandbox have the policies in a bridge that is there already, as after a
// restart of the agent.
func TestBridgeBeforeFirstTables(t *testing.T) {
	s := newStage(t)
	s.bridged["web"] = true
	s.mu.Lock()
	s.targets[id("web")] = cache.Target{
		Pod: id("web"), Sandbox: cache.Sandbox{ID: "s1", NetNS: "/s1"}, Tables: engine.Tables{engine.Inet: chains(2)}, BridgePorts: []string{"net1"},
	}
	s.dirty = append(s.dirty, id("web"))
	s.mu.Unlock()
	s.agent.Notify()
	s.run()
	s.settled()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, want := range s.applied["web"] {
		if len(want[engine.Bridge].Chains) == 0 {
			t.Errorf("applied: %+v", want)
		}
	}
	if len(s.applied["web"]) == 0 {
		t.Error("nothing was applied")
	}
}
