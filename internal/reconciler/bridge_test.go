package reconciler

import (
	"testing"
	"time"

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

// TestBridgeSearchSlowsDown: a pod without a bridge is looked at less often when its interfaces are old.
func TestBridgeSearchSlowsDown(t *testing.T) {
	start := time.Now()
	for _, c := range []struct {
		name  string
		ports []string
		at    time.Duration // since the first look
		last  time.Duration // since the last look
		want  bool
	}{
		{"soon after a look", []string{"net1"}, time.Minute, 4 * time.Second, false},
		{"five seconds after a look", []string{"net1"}, time.Minute, 5 * time.Second, true},
		{"old interfaces", []string{"net1"}, time.Hour, 59 * time.Second, false},
		{"old interfaces, a minute after a look", []string{"net1"}, time.Hour, time.Minute, true},
		{"no interface to look for", nil, time.Minute, time.Hour, false},
	} {
		now := start.Add(c.at)
		s := bridgeSearch{ports: c.ports, since: start, last: now.Add(-c.last)}
		if got := s.isDue(now); got != c.want {
			t.Errorf("%s: due: %t", c.name, got)
		}
	}
}
