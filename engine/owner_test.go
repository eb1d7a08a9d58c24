package engine

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/nft"
)

// own opens an Engine that owns its tables. A kernel before 6.9 has no such tables: then this is no test.
func own(t *testing.T, h *lab.Host) *Engine {
	t.Helper()
	features, err := Probe()
	if err != nil {
		t.Fatal(err)
	}
	if !features.Owner {
		t.Skip("SKIPPED: this kernel has no tables that have an owner and outlive it (6.9)")
	}
	e, err := Open("default/pod", h.NetNS(), Options{Own: true})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// attempts are what root in the pod may try.
var attempts = []string{
	"flush table inet multi_networkpolicy",
	"delete table inet multi_networkpolicy",
	"insert rule inet multi_networkpolicy ingress-net1 accept",
	"flush chain inet multi_networkpolicy prerouting",
	"add element inet multi_networkpolicy peers-v4 { 192.0.2.0/24 }",
	"add table inet multi_networkpolicy { flags dormant; }",
}

// TestOwnedTable: while its owner lives nobody else can change the table, and a flush of all tables passes it over.
// Without the owner it stays; a new owner takes it over in one message, and finds what was changed meanwhile.
func TestOwnedTable(t *testing.T) {
	l := lab.ForTest(t)
	h, err := l.Host("pod")
	if err != nil {
		t.Fatal(err)
	}
	e := own(t, h)
	want := isolated(parseAddrs("10.0.0.1"), 80)
	apply(t, e, want)
	check := func(when string) {
		t.Helper()
		if diff := cmp.Diff(normal(rendered(t, want)), normal(nft.WithoutOwner(listTable(t, h)))); diff != "" {
			t.Errorf("%s (-rendered +nft):\n%s", when, diff)
		}
	}
	check("owned")
	other, err := l.Host("other")
	if err != nil {
		t.Fatal(err)
	}
	nft.MustRun(t, other, listTable(t, h), "--check", "--file", "-")
	for _, a := range attempts {
		if out, err := nft.Run(h, a, "--file", "-"); err == nil || !strings.Contains(out, "Operation not permitted") {
			t.Errorf("%s: %v %s", a, err, out)
		}
	}
	nft.MustRun(t, h, "flush ruleset", "--file", "-")
	check("after the attempts")

	want = isolated(parseAddrs("10.0.0.1", "10.0.0.9"), 81)
	apply(t, e, want)
	check("changed by its owner")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	check("after its owner")

	next := own(t, h)
	apply(t, next, want)
	if s := next.Stats(); s.Batches != 1 || s.Messages != 3 {
		t.Errorf("took over in %d batches of %d messages, want 1 of 3: begin, table, end", s.Batches, s.Messages)
	}
	if _, err := nft.Run(h, attempts[0], "--file", "-"); err == nil {
		t.Error("the table was not taken over")
	}
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	nft.MustRun(t, h, attempts[2], "--file", "-") // an orphan is anyone's
	last := own(t, h)
	apply(t, last, want)
	check("repaired at the next start")
	apply(t, last, Ruleset{})
	if out := listTable(t, h); out != "" {
		t.Errorf("removed, but: %s", out)
	}
	if err := last.Close(); err != nil {
		t.Fatal(err)
	}
}

// twoOwners are two agents in a namespace.
func twoOwners(t *testing.T) (h *lab.Host, first, second *Engine) {
	t.Helper()
	h, err := lab.ForTest(t).Host("pod")
	if err != nil {
		t.Fatal(err)
	}
	return h, own(t, h), own(t, h)
}

// TestOwnedByAnother: two agents in a namespace do not take turns: the second cannot change the table (EPERM), is
// content with the right content, and takes it over once the first is gone.
func TestOwnedByAnother(t *testing.T) {
	h, first, second := twoOwners(t)
	apply(t, first, isolated(parseAddrs("10.0.0.1"), 80))
	if err := second.Apply(context.Background(), isolated(parseAddrs("10.0.0.2"), 80)); !errors.Is(err, unix.EPERM) {
		t.Errorf("second owner: %v", err)
	}
	want := isolated(parseAddrs("10.0.0.3"), 80)
	apply(t, first, want)
	apply(t, second, want)
	finds(t, "while the first has it", second, OwnedByAnother)
	if first.isExposed() || !second.isExposed() {
		t.Errorf("exposed to others: the owner's %t, the other's %t", first.isExposed(), second.isExposed())
	}
	finds(t, "its owner", first, AsApplied)
	want = isolated(parseAddrs("10.0.0.4"), 80)
	apply(t, first, want)
	if _, err := second.Check(context.Background()); !errors.Is(err, unix.EPERM) {
		t.Errorf("the first has changed it: Check by the second: %v", err)
	}
	apply(t, second, want)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	finds(t, "the first is gone", second, TakenOver)
	finds(t, "taken over", second, AsApplied)
	if second.isExposed() {
		t.Error("taken over, and yet exposed to others")
	}
	if s := second.Stats(); s.Repairs != 0 {
		t.Errorf("%d changes of the owner are counted as repairs", s.Repairs)
	}
	if _, err := nft.Run(h, attempts[0], "--file", "-"); err == nil {
		t.Error("the table has no owner")
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestOwnerEndsUnseen: a table is changed between the end of its owner and the look that notices it.
func TestOwnerEndsUnseen(t *testing.T) {
	h, first, second := twoOwners(t)
	apply(t, first, isolated(parseAddrs("10.0.0.1"), 80))
	apply(t, second, isolated(parseAddrs("10.0.0.1"), 80))
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	want := isolated(parseAddrs("10.0.0.2"), 80)
	apply(t, second, want)
	finds(t, "a change needs no owner", second, TakenOver)
	if _, err := nft.Run(h, attempts[0], "--file", "-"); err == nil {
		t.Error("the table has no owner")
	}
	if diff := cmp.Diff(normal(rendered(t, want)), normal(nft.WithoutOwner(listTable(t, h)))); diff != "" {
		t.Errorf("(-rendered +nft):\n%s", diff)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}

func finds(t *testing.T, when string, e *Engine, want Finding) {
	t.Helper()
	if found, err := e.Check(context.Background()); found != want || err != nil {
		t.Errorf("%s: Check: %v, %v, want %v", when, found, err, want)
	}
}

// TestBecomesOwner: a table made without an owner, by an earlier version or on an older kernel, is replaced by a table
// with an owner.
func TestBecomesOwner(t *testing.T) {
	h, plain := pod(t, lab.ForTest(t), "pod")
	want := isolated(parseAddrs("10.0.0.1"), 80)
	apply(t, plain, want)
	e := own(t, h)
	defer e.Close()
	apply(t, e, want)
	if _, err := nft.Run(h, attempts[0], "--file", "-"); err == nil {
		t.Error("the table has no owner")
	}
}

// TestCheckRepairs: where the kernel cannot keep others out, what they change is found and undone.
func TestCheckRepairs(t *testing.T) {
	h, e := pod(t, lab.ForTest(t), "pod")
	want := isolated(parseAddrs("10.0.0.1"), 80)
	apply(t, e, want)
	finds(t, "nothing changed", e, AsApplied)
	for _, a := range append(attempts, "flush ruleset") {
		nft.MustRun(t, h, a, "--file", "-")
		finds(t, a, e, Repaired)
		if diff := cmp.Diff(normal(rendered(t, want)), normal(listTable(t, h))); diff != "" {
			t.Errorf("%s (-rendered +nft):\n%s", a, diff)
		}
		finds(t, a+", again", e, AsApplied)
	}
	nft.MustRun(t, h, "add table inet other", "--file", "-")
	finds(t, "another table", e, AsApplied)
	nft.MustRun(t, h, "delete table inet other", "--file", "-")
	// A change that comes right before a batch is found by the batch itself.
	nft.MustRun(t, h, attempts[2], "--file", "-")
	want = isolated(parseAddrs("10.0.0.1", "10.0.0.9"), 80)
	apply(t, e, want)
	if diff := cmp.Diff(normal(rendered(t, want)), normal(listTable(t, h))); diff != "" {
		t.Errorf("(-rendered +nft):\n%s", diff)
	}
	if s := e.Stats(); s.Repairs != uint64(len(attempts)+2) {
		t.Errorf("%d repairs counted", s.Repairs)
	}
}

// TestGenerationIsPredicted: batches of our own are counted right, so that none is sent twice.
func TestGenerationIsPredicted(t *testing.T) {
	_, e := pod(t, lab.ForTest(t), "pod")
	for i := range 20 {
		apply(t, e, isolated(parseAddrs("10.0.0.1", "10.0.0.9"), uint16(80+i%3)))
		apply(t, e, Ruleset{})
	}
	if s := e.Stats(); s.Restarts != 0 || s.ReadBacks != 1 || s.Batches != 80 { // sets, chains, base chains; and the removal
		t.Errorf("%+v", s)
	}
}
