package engine

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/nft"
)

// storm makes and deletes a table of its own in the host's namespace without a pause, as somebody in a pod may who does
// not want its policies changed.
func storm(t *testing.T, h *lab.Host) (stop func()) {
	t.Helper()
	other, err := nfnl.Open(h.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	var b batch
	b.BeginBatch(nfnl.AnyGeneration)
	b.begin(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, nfnl.Label{})
	b.Text(unix.NFTA_TABLE_NAME, "other")
	b.End()
	b.begin(unix.NFT_MSG_DELTABLE, 0, nfnl.Label{})
	b.Text(unix.NFTA_TABLE_NAME, "other")
	b.End()
	b.EndBatch()
	done := make(chan struct{})
	var running sync.WaitGroup
	batches := 0
	running.Go(func() {
		for ; ; batches++ {
			select {
			case <-done:
				return
			default:
			}
			if err := other.Do(&b.Messages, nil); err != nil {
				t.Errorf("storm: %v", err)
				return
			}
		}
	})
	return func() {
		close(done)
		running.Wait()
		t.Logf("a storm of %d batches", batches)
		if err := other.Close(); err != nil {
			t.Error(err)
		}
	}
}

func unowned(t *testing.T, h *lab.Host) *Engine {
	t.Helper()
	e, err := Open("default/pod", h.NetNS(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestStorm: changes of other tables without a pause do not keep rules out of the agent's table, and no obsolete rule stays.
func TestStorm(t *testing.T) {
	for name, open := range map[string]func(*testing.T, *lab.Host) *Engine{"owner": own, "no owner": unowned} {
		t.Run(name, func(t *testing.T) {
			h, err := lab.ForTest(t).Host("pod")
			if err != nil {
				t.Fatal(err)
			}
			e := open(t, h)
			stop := storm(t, h)
			var want Ruleset
			restarts := uint64(0)
			deadline := time.Now().Add(time.Minute)
			for i := 0; i < 30 || restarts < 3*applyTries && time.Now().Before(deadline); i++ {
				if want = isolated(parseAddrs("10.0.0.1"), uint16(80+i%1000)); i%3 == 1 {
					want = Ruleset{}
				}
				apply(t, e, want)
				if i%10 == 9 { // the next Apply finds a table that has lost its owner
					restarts += e.Stats().Restarts
					if err := e.Close(); err != nil {
						t.Fatal(err)
					}
					e = open(t, h)
				}
			}
			apply(t, e, want)
			stop()
			if restarts < 3*applyTries {
				t.Errorf("not a storm: %d restarts", restarts)
			}
			finds(t, "after the storm", e, AsApplied)
			if diff := cmp.Diff(normal(rendered(t, want)), normal(nft.WithoutOwner(listTable(t, h)))); diff != "" {
				t.Errorf("(-rendered +nft):\n%s", diff)
			}
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestStormBesideOwnedTable: while the table is the Engine's own, changes of other tables cost no restart and no look at
// the table.
func TestStormBesideOwnedTable(t *testing.T) {
	h, err := lab.ForTest(t).Host("pod")
	if err != nil {
		t.Fatal(err)
	}
	e := own(t, h)
	apply(t, e, isolated(parseAddrs("10.0.0.1"), 80))
	stop := storm(t, h)
	for i := range 100 {
		apply(t, e, isolated(parseAddrs("10.0.0.1"), uint16(80+i)))
		finds(t, "in the storm", e, AsApplied)
	}
	stop()
	if s := e.Stats(); s.Restarts != 0 || s.ReadBacks != 1 {
		t.Errorf("%d restarts, %d looks", s.Restarts, s.ReadBacks)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// TestCheckInStorm: a table that is right is not replaced because other tables change all the time.
func TestCheckInStorm(t *testing.T) {
	h, e := pod(t, lab.ForTest(t), "pod")
	want := isolated(parseAddrs("10.0.0.1"), 80)
	apply(t, e, want)
	before := e.Stats()
	stop := storm(t, h)
	for range 100 {
		finds(t, "in the storm", e, AsApplied)
	}
	nft.MustRun(t, h, attempts[2], "--file", "-")
	finds(t, "an accept rule more", e, Repaired)
	stop()
	if s := e.Stats(); s.Repairs != 1 || s.Batches != before.Batches+1 {
		t.Errorf("%d repairs, %d batches", s.Repairs, s.Batches-before.Batches)
	}
	if diff := cmp.Diff(normal(rendered(t, want)), normal(listTable(t, h))); diff != "" {
		t.Errorf("(-rendered +nft):\n%s", diff)
	}
}
