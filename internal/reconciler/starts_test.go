package reconciler

import (
	"errors"
	"fmt"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// isolating returns a ruleset that isolates an interface, and sends its packets through so many chains.
func isolating(policies int) engine.Ruleset {
	iface := &engine.Chain{Name: "egress-net1"}
	list := []*engine.Chain{iface, {Name: "output", Hook: engine.HookOutput, Rules: []engine.Rule{
		{Statements: []expr.Statement{expr.OIFName("net1"), expr.Goto(iface.Name)}},
	}}}
	for i := range policies {
		c := &engine.Chain{Name: fmt.Sprintf("policy-%d", i)}
		iface.Rules = append(iface.Rules, engine.Rule{Statements: []expr.Statement{expr.Jump(c.Name)}})
		list = append(list, c)
	}
	iface.Rules = append(iface.Rules, engine.Rule{Statements: []expr.Statement{expr.Drop()}})
	return engine.NewRuleset(nil, list)
}

// hooked notes that the runtime told of the pod's sandbox before the pod started.
func (s *stage) hooked(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	target := s.targets[id(name)]
	target.Sandbox.Hooked = true
	s.targets[id(name)] = target
}

// TestClosedStarts: of many pods with large tables that start together, the first start with their tables. The others start
// closed, and get their tables from a worker. Pods with small tables never start closed.
func TestClosedStarts(t *testing.T) {
	s := newStage(t)
	large, small := isolating(500), isolating(3)
	const pods = 50
	name := func(i int) string { return fmt.Sprintf("large-%d", i) }
	for i := range pods {
		s.set(name(i), "a", large)
		s.hooked(name(i))
		if _, err := s.now(name(i)); err != nil {
			t.Fatal(err)
		}
	}
	s.set("small", "a", small)
	s.hooked("small")
	if _, err := s.now("small"); err != nil {
		t.Fatal(err)
	}
	closed := 0
	for i := range pods {
		if got := len(s.applied[name(i)][0][engine.Inet].Chains); got == 2 {
			closed++
		} else if got != len(large.Chains) {
			t.Errorf("%s: %d chains", name(i), got)
		}
	}
	if closed < pods/2 || closed == pods {
		t.Errorf("%d of %d pods started closed", closed, pods)
	}
	if got := s.agent.Stats().ClosedStarts; got != uint64(closed) {
		t.Errorf("counted %d closed starts, want %d", got, closed)
	}
	if got := len(s.applied["small"][0][engine.Inet].Chains); got != len(small.Chains) {
		t.Errorf("a small table: %d chains, want %d", got, len(small.Chains))
	}
	last := name(pods - 1)
	if enforced, err := s.now(last); !enforced || err != nil || len(s.applied[last]) != 1 {
		t.Errorf("a closed pod that the runtime asks about again: %v, %v, %d applies; want it to stay closed", enforced, err, len(s.applied[last]))
	}
	s.failing("check "+last, errors.New("flushed"))
	if err := s.agent.reconcile(t.Context(), id(last)); err != nil {
		t.Error(err)
	}
	if list := s.applied[last]; len(list) != 2 || len(list[1][engine.Inet].Chains) != 2 {
		t.Errorf("a closed pod whose tables are gone: %d applies, want its small tables again", len(list))
	}
	s.failing("check "+last, nil)
	s.run()
	s.settled()
	for i := range pods {
		list := s.applied[name(i)]
		if got := len(list[len(list)-1][engine.Inet].Chains); got != len(large.Chains) {
			t.Errorf("%s at the end: %d chains, want %d", name(i), got, len(large.Chains))
		}
	}
}
