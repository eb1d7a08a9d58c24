package reconciler

import "testing"

// TestOwnedTablesTakeTurns: the agent asks about a table that no other process can change in one of ten intervals, and about any other
// table in each.
func TestOwnedTablesTakeTurns(t *testing.T) {
	s := newStage(t)
	s.set("web", "s1", chains(2))
	s.agent.Notify()
	stop := s.run()
	s.settled()
	stop()
	e := s.agent.enforced(id("web"))
	if err := s.agent.openTable(e, s.targets[id("web")]); err != nil {
		t.Fatal(err)
	}
	for _, owned := range []bool{true, false} {
		s.owned, s.asked = owned, 0
		for turn := range ownedAudits {
			s.agent.isChanged(t.Context(), id("web"), turn)
		}
		if want := map[bool]int{true: 1, false: ownedAudits}[owned]; s.asked != want {
			t.Errorf("owned: %t: asked %d times, want %d", owned, s.asked, want)
		}
	}
}
