package reconciler

import "testing"

// TestOwnedTablesTakeTurns: the agent asks about a table that no other process can change in one of ten intervals, and about any other
// table in each.
func TestOwnedTablesTakeTurns(t *testing.T) {
	s := newStage(t)
	s.set("web", "s1", chains(2))
	s.agent.Notify()
	s.run()
	s.settled()
	pod := id("web")
	for _, owned := range []bool{true, false} {
		s.mu.Lock()
		s.owned = owned
		s.mu.Unlock()
		s.agent.isChanged(t.Context(), pod)
		asked := 0
		for turn := range ownedAudits {
			asked += len(s.agent.due(turn))
		}
		if want := map[bool]int{true: 1, false: ownedAudits}[owned]; asked != want {
			t.Errorf("owned: %t: asked %d times, want %d", owned, asked, want)
		}
	}
}
