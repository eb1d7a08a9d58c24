package engine

import (
	"context"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/lab"
)

// storm makes and deletes a table of its own in the host's namespace without a pause, as somebody in a pod may who does
// not want its policies changed.
func storm(t *testing.T, h *lab.Host) (stop func()) {
	t.Helper()
	other, err := open(h.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	var b batch
	b.control(unix.NFNL_MSG_BATCH_BEGIN, batchBegin)
	b.end()
	b.begin(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, message{})
	b.string(unix.NFTA_TABLE_NAME, "other")
	b.end()
	b.begin(unix.NFT_MSG_DELTABLE, 0, message{})
	b.string(unix.NFTA_TABLE_NAME, "other")
	b.end()
	b.control(unix.NFNL_MSG_BATCH_END, "BATCH_END")
	b.end()
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
			if err := other.send(b.buf); err != nil {
				t.Errorf("storm: %v", err)
				return
			}
		}
	})
	return func() {
		close(done)
		running.Wait()
		t.Logf("a storm of %d batches", batches)
		if err := other.close(); err != nil {
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

// TestStorm: who changes other tables all the time does not keep rules out of this one, and none of them stays behind.
func TestStorm(t *testing.T) {
	for name, open := range map[string]func(*testing.T, *lab.Host) *Engine{"owner": own, "no owner": unowned} {
		t.Run(name, func(t *testing.T) {
			h, err := lab.ForTest(t).Host("pod")
			if err != nil {
				t.Fatal(err)
			}
			e := open(t, h)
			defer e.Close()
			stop := storm(t, h)
			var want Ruleset
			for i := range 30 {
				if want = isolated(parseAddrs("10.0.0.1"), uint16(80+i)); i%3 == 1 {
					want = Ruleset{}
				}
				apply(t, e, want)
			}
			stop()
			if s := e.Stats(); s.Restarts == 0 {
				t.Errorf("not a storm: %+v", s)
			}
			if repaired, err := e.Check(context.Background()); repaired || err != nil {
				t.Errorf("Check: %v, %v", repaired, err)
			}
			if diff := cmp.Diff(normal(rendered(t, want)), normal(withoutFlags(listTable(t, h)))); diff != "" {
				t.Errorf("(-rendered +nft):\n%s", diff)
			}
		})
	}
}
