package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/nft"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// largePolicy is a pod's ruleset with a policy of n rules, each with a set of its own.
func largePolicy(n int) Ruleset {
	policy := &Chain{Name: PolicyChain(Ingress, somePolicy)}
	var list []*Set
	for i := range n {
		s := &Set{Name: GroupSet(PeerGroup, fmt.Sprintf("%016x", i), sets.V4), Elements: Addrs{sets.V4, block(byte(i), 3)}}
		list = append(list, s)
		policy.Rules = append(policy.Rules, Rule{Statements: []expr.Statement{expr.SourceIn(sets.V4, s.Name), expr.Accept()}})
	}
	closed := isolated(sets.Addrs{}, 80)
	return NewRuleset(append(list, closed.Sets...), []*Chain{
		closed.chain("prerouting"), policy,
		{Name: "ingress-net1", Rules: []Rule{
			{Statements: []expr.Statement{expr.Jump(policy.Name)}, Comment: "ns/policy"},
			{Statements: []expr.Statement{expr.Counter(), expr.Drop()}},
		}},
	})
}

// byText compares rules as the plan does.
var byText = cmp.Comparer(func(a, b Rule) bool { return a.equal(&b) })

// canceledAfter is a context that is canceled when it has been asked so many times.
type canceledAfter struct {
	context.Context
	times int
}

func (c *canceledAfter) Err() error {
	if c.times--; c.times < 0 {
		return context.Canceled
	}
	return nil
}

// TestCanceledBetweenSteps: an Apply that is canceled leaves a table that is known and in which nothing new is in force,
// and the next Apply goes on from there, also of another Engine.
func TestCanceledBetweenSteps(t *testing.T) {
	for name, next := range map[string]func(t *testing.T, h *lab.Host, e *Engine) *Engine{
		"same engine": func(_ *testing.T, _ *lab.Host, e *Engine) *Engine { return e },
		"restart":     func(t *testing.T, h *lab.Host, _ *Engine) *Engine { return openEngine(t, h) },
	} {
		t.Run(name, func(t *testing.T) {
			h, e := pod(t, lab.ForTest(t), "pod")
			e.budget = tinyBudget
			apply(t, e, isolated(parseAddrs("10.0.0.1"), 80))
			want := largePolicy(60)
			err := e.Apply(&canceledAfter{t.Context(), 40}, want)
			var applyErr *ApplyError
			if !errors.Is(err, context.Canceled) || !errors.As(err, &applyErr) {
				t.Fatalf("error: %v", err)
			}
			if diff := cmp.Diff(normal(rendered(t, e.have.ruleset)), normal(listTable(t, h))); diff != "" {
				t.Errorf("not what is known (-known +nft):\n%s", diff)
			}
			inForce := isolated(sets.Addrs{}, 80).chain("ingress-net1").Rules
			if diff := cmp.Diff(inForce, e.have.ruleset.chain("ingress-net1").Rules, byText); diff != "" {
				t.Errorf("in force (-before +now):\n%s", diff)
			}
			finds(t, "canceled", e, AsApplied)
			e = next(t, h, e)
			e.budget = tinyBudget
			before := e.Stats()
			apply(t, e, want)
			if diff := cmp.Diff(normal(rendered(t, want)), normal(listTable(t, h))); diff != "" {
				t.Errorf("(-rendered +nft):\n%s", diff)
			}
			all := int(e.Stats().Batches - before.Batches)
			fresh := 0
			for range steps(&table{ruleset: isolated(parseAddrs("10.0.0.1"), 80)}, want, 0, tinyBudget) {
				fresh++
			}
			if all > fresh-30 {
				t.Errorf("%d batches, and %d from the start", all, fresh)
			}
			finds(t, "applied", e, AsApplied)
		})
	}
}

// TestStepsAreFew: a large change is split in as many batches as the budget asks for, and a small change is not split.
func TestStepsAreFew(t *testing.T) {
	needsLargeBuffers(t)
	l := lab.ForTest(t)
	for name, tt := range map[string]struct {
		want        Ruleset
		least, most uint64
	}{
		"one policy":    {manyPeers(1_000, 1), 3, 12},
		"many policies": {manyPolicies(1_000), 3, 12},
		"many rules":    {manyRules(10_000), 4, 8},
		"many elements": {manyPeers(1, 50_000), 4, 8},
	} {
		t.Run(name, func(t *testing.T) {
			_, e := pod(t, l, "pod")
			apply(t, e, isolated(parseAddrs("10.0.0.1"), 80))
			before := e.Stats().Batches
			apply(t, e, tt.want)
			if n := e.Stats().Batches - before; n < tt.least || n > tt.most {
				t.Errorf("%d batches", n)
			}
			before = e.Stats().Batches
			input := &Chain{Name: "prerouting", Hook: HookPrerouting}
			apply(t, e, Ruleset{Sets: tt.want.Sets, Chains: override(tt.want.Chains, []*Chain{input}, chainName)})
			if n := e.Stats().Batches - before; n != 1 {
				t.Errorf("%d batches for one rule less", n)
			}
			if s := e.Stats(); s.ReadBacks != 1 || s.Refused != 0 || s.Restarts != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestStepsOfOwner: the first step makes the table the Engine's own, also where it has no sets.
func TestStepsOfOwner(t *testing.T) {
	h, err := lab.ForTest(t).Host("pod")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []Ruleset{isolated(parseAddrs("10.0.0.1"), 80), largePolicy(20), isolated(parseAddrs("10.0.0.1"), 81)} {
		e := own(t, h)
		e.budget = tinyBudget
		apply(t, e, want)
		if diff := cmp.Diff(normal(rendered(t, want)), normal(nft.WithoutOwner(listTable(t, h)))); diff != "" {
			t.Errorf("%d (-rendered +nft):\n%s", i, diff)
		}
		finds(t, "applied", e, AsApplied)
		if _, err := nft.Run(h, attempts[0], "--file", "-"); err == nil {
			t.Errorf("%d: the table has no owner", i)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLargeForeignTable: what root in the pod has put in place of the table is replaced by a table that is closed, and
// filled then.
func TestLargeForeignTable(t *testing.T) {
	h, e := pod(t, lab.ForTest(t), "pod")
	e.budget = tinyBudget
	want := largePolicy(30)
	nft.MustRun(t, h, "table inet multi_networkpolicy { map m { type ipv4_addr : verdict; }; chain input { accept; }; }", "--file", "-")
	if err := e.Apply(&canceledAfter{t.Context(), 3}, want); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	closed, _ := lockdown(want)
	for _, c := range closed.Chains {
		if diff := cmp.Diff(c.Rules, e.have.ruleset.chain(c.Name).Rules, byText); diff != "" {
			t.Errorf("in force in %s (-closed +now):\n%s", c.Name, diff)
		}
	}
	apply(t, e, want)
	if diff := cmp.Diff(normal(rendered(t, want)), normal(listTable(t, h))); diff != "" {
		t.Errorf("(-rendered +nft):\n%s", diff)
	}
}

// TestStepsInStorm: while another process changes other tables without a pause, an Apply of many steps gets through, or
// locks the interfaces. It never ends with half of the rules in force.
func TestStepsInStorm(t *testing.T) {
	h, e := pod(t, lab.ForTest(t), "pod")
	e.budget = tinyBudget
	want := largePolicy(60)
	closed, ok := lockdown(want)
	if !ok {
		t.Fatal("cannot be locked")
	}
	stop := storm(t, h)
	locked := 0
	for i := range 20 {
		apply(t, e, Ruleset{})
		err := e.Apply(t.Context(), want)
		switch expected := want; {
		case errors.Is(err, ErrLocked):
			locked++
			expected = closed
			fallthrough
		case err == nil:
			table := nft.MustRun(t, h, "", "--stateless", "list", "table", "inet", TableName)
			if diff := cmp.Diff(normal(rendered(t, expected)), normal(table)); diff != "" {
				t.Errorf("%d, %v (-rendered +nft):\n%s", i, err, diff)
			}
		default:
			t.Errorf("%d: %v", i, err)
		}
	}
	stop()
	t.Logf("locked %d times", locked)
	apply(t, e, want)
	if diff := cmp.Diff(normal(rendered(t, want)), normal(listTable(t, h))); diff != "" {
		t.Errorf("after the storm (-rendered +nft):\n%s", diff)
	}
}

// TestStepsAmongManyTables: the kernel finds the table in a list for each message. Where root in the pod has made that list
// long, a batch has fewer messages.
func TestStepsAmongManyTables(t *testing.T) {
	h, e := pod(t, lab.ForTest(t), "pod")
	other, err := nfnl.Open(h.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	const atOnce = 1_000
	for first := 0; first < 15_000; first += atOnce {
		var b batch
		b.BeginBatch(nfnl.AnyGeneration)
		for i := range atOnce {
			b.begin(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, nfnl.Label{})
			b.Text(unix.NFTA_TABLE_NAME, fmt.Sprintf("t%d", first+i))
			b.End()
		}
		b.EndBatch()
		if err := other.Do(&b.Messages, nil); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, e, isolated(parseAddrs("10.0.0.1"), 80))
	t.Logf("the table is found in %v", e.have.lookup)
	before := e.Stats().Batches
	want := manyRules(2_000)
	apply(t, e, want)
	least := uint64(2_000 * (e.have.lookup + costRule) / batchBudget)
	if n := e.Stats().Batches - before; e.have.lookup == 0 || n < least {
		t.Errorf("%d batches, want at least %d", n, least)
	}
	table := nft.MustRun(t, h, "", "--stateless", "list", "table", "inet", TableName)
	if diff := cmp.Diff(normal(rendered(t, want)), normal(table)); diff != "" {
		t.Errorf("(-rendered +nft):\n%s", diff)
	}
}
