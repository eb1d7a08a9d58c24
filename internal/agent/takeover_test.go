package agent

import (
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// batches is how many batches went into each pod while f ran.
func (w *leakWorld) batches(f func()) map[string]uint32 {
	w.t.Helper()
	counts := map[string]uint32{}
	for name, h := range w.hosts {
		counts[name] = lab.Generation(w.t, h)
	}
	f()
	for name, h := range w.hosts {
		counts[name] = lab.Generation(w.t, h) - counts[name]
	}
	return counts
}

// table returns what is in a pod, without the counters, and the handles of all that is in it: a chain that is made again
// has another handle. The listing has the chains and sets in sorted order.
func (w *leakWorld) table(pod string) (listing, handles string) {
	w.t.Helper()
	out, err := w.nft(pod, "--stateless", "--handle", "list", "ruleset")
	if err != nil {
		w.t.Fatalf("nft: %v %s", err, out)
	}
	handle := regexp.MustCompile(` # handle \d+`)
	apart := strings.NewReplacer("\n}\n", "\n\n", " {\n\tset", " {\n\n\tset", " {\n\tchain", " {\n\n\tchain") // the tables
	blocks := strings.Split(strings.TrimSpace(apart.Replace(handle.ReplaceAllString(out, ""))), "\n\n")
	slices.Sort(blocks)
	return strings.Join(blocks, "\n\n"), strings.Join(handle.FindAllString(out, -1), "")
}

// TestTakeOver: an agent that finds what it wants sends nothing, and one batch where the table gets its owner. What
// changed while there was none is the only other thing that is sent.
func TestTakeOver(t *testing.T) { onBothPaths(t, testTakeOver) }

func testTakeOver(t *testing.T, own bool) {
	w := newLeakWorld(t, rand.New(rand.NewPCG(1, 1)), own)
	takeOver := uint32(0)
	if own {
		takeOver = 2 // a batch for each table
	}
	restart := func(what string, server, allowed uint32) {
		t.Helper()
		got := w.batches(func() {
			w.start()
			w.settle()
			w.stop()
		})
		if got["server"] != server || got["allowed"] != allowed || got["forbidden"] != 0 {
			t.Errorf("%s: batches %v, want %d for the server and %d for the allowed pod", what, got, server, allowed)
		}
	}
	w.start()
	w.settle()
	w.stop()
	listing, handles := w.table("server")
	restart("nothing changed", takeOver, takeOver)
	restart("nothing changed, again", takeOver, takeOver)
	if again, same := w.table("server"); again != listing || same != handles {
		t.Errorf("the table was\n%s%s\nand is\n%s%s", listing, handles, again, same)
	}

	w.pods["peer"] = leakPod("peer", "other", netip.MustParseAddr("10.8.1.1"), map[string]string{"app": "allowed"})
	restart("a peer came", takeOver+1, takeOver)
	if again, same := w.table("server"); again == listing || same != handles {
		t.Errorf("with one peer more the table is\n%s%s", again, same)
	}
	delete(w.policy, "allowed")
	restart("a policy was deleted", takeOver, 2)
	if left, _ := w.table("allowed"); left != "" {
		t.Errorf("the policy's table stays:\n%s", left)
	}
}

// TestForeignTable: the table of another agent is replaced in one batch, with packets in flight.
func TestForeignTable(t *testing.T) { onBothPaths(t, testForeignTable) }

func testForeignTable(t *testing.T, own bool) {
	w := newLeakWorld(t, rand.New(rand.NewPCG(1, 1)), own)
	delete(w.policy, "allowed")
	foreign := func(before string) {
		t.Helper()
		if out, err := w.nft("server", before+`include "./testdata/peer.nft"`); err != nil {
			t.Fatalf("nft: %v %s", err, out)
		}
	}
	foreign("")
	sink := lab.NewSink(t, w.hosts["server"])
	to := netip.AddrPortFrom(w.addrs["server"], lab.FloodPort)
	good, bad := lab.StartFlood(t, w.hosts["allowed"], to, lab.AllowedPatience), lab.StartFlood(t, w.hosts["forbidden"], to, lab.ForbiddenPatience)
	var ours string
	bridge := uint32(1) // the first agent makes the table of family bridge
	for range 40 {
		got := w.batches(func() {
			w.start()
			w.settle()
			w.stop()
		})
		if got["server"] != 1+bridge {
			t.Fatalf("replaced in %d batches", got["server"])
		}
		if !own {
			bridge = 0 // the others find it, and have no need to own it
		}
		if ours, _ = w.table("server"); strings.Contains(ours, "smi-") || !strings.Contains(ours, "ingress-net1") {
			t.Fatalf("it is\n%s", ours)
		}
		foreign("delete table inet multi_networkpolicy; ")
		time.Sleep(5 * time.Millisecond)
	}
	good.End()
	bad.End()
	time.Sleep(100 * time.Millisecond)
	sink.HasNothingFrom(t, w.addrs["forbidden"], bad)
	// While the kernel fills the sets of a table that is new in the same batch, a packet may find them empty.
	received, connections := sink.Received(w.addrs["allowed"])
	if lost := good.Sent.Load() - uint64(received); lost > 40 || connections == 0 {
		t.Errorf("lost %d of %d datagrams in 40 replacements, %d connections", lost, good.Sent.Load(), connections)
	}
}
