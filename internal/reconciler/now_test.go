package reconciler

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

func (s *stage) now(name string) (bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return s.agent.EnforceNow(ctx, id(name))
}

func TestEnforceNow(t *testing.T) {
	s := newStage(t) // no worker runs: what happens is not the queue's
	s.set("web", "a", chains(2))
	s.set("free", "b", engine.Ruleset{})
	s.set("lost", "", chains(1))
	for name, tc := range map[string]struct {
		enforced bool
		err      error
	}{
		"web":     {true, nil},
		"free":    {false, nil},
		"unknown": {false, nil},
		"lost":    {false, errNoSandbox},
	} {
		if enforced, err := s.now(name); enforced != tc.enforced || !errors.Is(err, tc.err) {
			t.Errorf("%s: %v, error %v", name, enforced, err)
		}
	}
	if got := s.taken(); len(got) != 2 || got[0] != "open web /a" || got[1] != "apply web 2" {
		t.Errorf("calls %q", got)
	}
	refusal := errors.New("no")
	s.failing("apply web", refusal)
	s.set("web", "a", chains(3))
	if _, err := s.now("web"); !errors.Is(err, refusal) {
		t.Errorf("refused: %v", err)
	}
	s.run()()
	if _, err := s.now("web"); !errors.Is(err, errEnded) {
		t.Errorf("after the end: %v", err)
	}
}

// The worker that has a pod is waited for, and only as long as the context allows.
func TestEnforceNowIsSerial(t *testing.T) {
	s := newStage(t)
	free := make(chan any)
	s.busy["web"] = free
	s.run()
	s.set("web", "a", chains(1))
	s.until("a worker", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.running["web"] == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.agent.EnforceNow(ctx, id("web")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while a worker has it: %v", err)
	}
	close(free)
	if enforced, err := s.now("web"); !enforced || err != nil {
		t.Errorf("then: %v, error %v", enforced, err)
	}
	s.settled()
	if s.most > 1 {
		t.Errorf("%d applies of one pod at once", s.most)
	}
	s.until("no lock is left", func() bool {
		s.agent.locks.mu.Lock()
		defer s.agent.locks.mu.Unlock()
		return len(s.agent.locks.locks) == 0
	})
}
