package engine

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// The estimated time of a batch grows with the number of its parts. Otherwise a large batch would not be split.
func TestCost(t *testing.T) {
	const n = 1000
	chain := manyRules(n)
	emptied := NewRuleset(chain.Sets, override(chain.Chains, []*Chain{{Name: PolicyChain(Ingress, somePolicy)}}, chainName))
	for name, tt := range map[string]struct {
		from, to Ruleset
		part     time.Duration
	}{
		"rules":                     {emptied, chain, costRule},
		"rules of an emptied chain": {chain, emptied, costRuleGone},
		"rules of a deleted chain":  {chain, NewRuleset(chain.Sets, chain.Chains[:0]), costRuleGone},
		"sets":                      {oneSet(0), NewRuleset(peerSets(n, 1), nil), costSet + costElement},
		"deleted sets":              {NewRuleset(peerSets(n, 1), nil), oneSet(0), costSet},
		"elements":                  {oneSet(0), NewRuleset(peerSets(1, n), nil), costElement},
	} {
		have := &table{ruleset: tt.from, handles: map[string][]uint64{}}
		for _, c := range tt.from.Chains {
			have.handles[c.Name] = slices.Repeat([]uint64{1}, len(c.Rules))
		}
		p := makePlan(have, tt.to, 0)
		if got := p.cost(have); got < (n-2)*tt.part {
			t.Errorf("%s: %s, want %s", name, got, n*tt.part)
		}
	}
}

// ruleOf is a rule as a policy has it.
func ruleOf(set string) Rule {
	return Rule{Statements: []expr.Statement{expr.SourceIn(sets.V4, set), expr.Accept()}, Comment: "namespace/policy ingress[1]"}
}

// peerSets is n sets with so many elements each.
func peerSets(n, elements int) []*Set {
	list := make([]*Set, n)
	for i := range list {
		list[i] = &Set{Name: GroupSet(PeerGroup, fmt.Sprintf("%016x", i), sets.V4), Elements: Addrs{sets.V4, scattered(elements)}}
	}
	return list
}

// BenchmarkKernelTime is how long the kernel takes for a batch with n parts of a kind, answers included, and what
// that is estimated at.
func BenchmarkKernelTime(b *testing.B) {
	l := lab.ForTest(b)
	chainOf := func(n, first int) *Chain {
		c := &Chain{Name: "c", Hook: HookPrerouting}
		for i := range n {
			r := ruleOf("peers-0000000000000000-v4")
			r.Comment = fmt.Sprint(first + i)
			c.Rules = append(c.Rules, r)
		}
		return c
	}
	for _, tt := range []struct {
		name  string
		sizes []int
		from  func(n int) Ruleset
		to    func(n int) Ruleset
	}{
		{"sets", []int{250, 1_000, 2_000}, nothing, func(n int) Ruleset { return NewRuleset(peerSets(n, 1), nil) }},
		{"sets deleted", []int{250, 1_000, 2_000}, func(n int) Ruleset { return NewRuleset(peerSets(n, 1), nil) }, oneSet},
		{"rules, a set each", []int{250, 1_000, 2_000}, func(n int) Ruleset { return NewRuleset(peerSets(n, 1), nil) }, func(n int) Ruleset {
			list, c := peerSets(n, 1), &Chain{Name: "c"}
			for _, s := range list {
				c.Rules = append(c.Rules, ruleOf(s.Name))
			}
			return NewRuleset(list, []*Chain{c})
		}},
		{"rules", []int{1_000, 4_000, 16_000}, oneSet, func(n int) Ruleset { return NewRuleset(peerSets(1, 1), []*Chain{chainOf(n, 0)}) }},
		{
			"rules deleted by handle", []int{250, 1_000, 4_000},
			func(n int) Ruleset { return NewRuleset(peerSets(1, 1), []*Chain{chainOf(10*n, 0)}) },
			func(n int) Ruleset { return NewRuleset(peerSets(1, 1), []*Chain{chainOf(9*n, n)}) },
		},
		{
			"rules deleted with their chain", []int{1_000, 16_000},
			func(n int) Ruleset { return NewRuleset(peerSets(1, 1), []*Chain{chainOf(n, 0)}) }, oneSet,
		},
		{"chains", []int{1_000, 4_000}, oneSet, func(n int) Ruleset {
			var list []*Chain
			for i := range n {
				list = append(list, &Chain{Name: PolicyChain(Ingress, fmt.Sprintf("%016x", i))})
			}
			return NewRuleset(peerSets(1, 1), list)
		}},
		{"table removed with sets", []int{1_000, 4_000}, func(n int) Ruleset { return manyPeers(n, 1) }, nothing},
		{"elements", []int{1_000, 10_000, 100_000}, oneSet, func(n int) Ruleset { return NewRuleset(peerSets(1, n), nil) }},
		{
			"one element of", []int{1_000, 10_000, 100_000}, func(n int) Ruleset { return NewRuleset(peerSets(1, n), nil) },
			func(n int) Ruleset { return NewRuleset(peerSets(1, n+1), nil) },
		},
	} {
		for _, n := range tt.sizes {
			b.Run(fmt.Sprintf("%s=%d", tt.name, n), func(b *testing.B) {
				var estimate time.Duration
				for b.Loop() {
					b.StopTimer()
					e := bare(b, l)
					if rs := tt.from(n); !rs.IsEmpty() {
						apply(b, e, rs)
					}
					want := tt.to(n)
					p := makePlan(e.have, want, 0)
					estimate = p.cost(e.have)
					x, done := e.exchange()
					b.StartTimer()
					if err := e.send(x, &p, want); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					done()
					if err := e.Close(); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
				took := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
				b.ReportMetric(took/1e6, "ms/batch")
				b.ReportMetric(float64(estimate.Nanoseconds())/1e6, "estimated-ms")
			})
		}
	}
}

func nothing(int) Ruleset { return Ruleset{} }
func oneSet(int) Ruleset  { return NewRuleset(peerSets(1, 1), nil) }

// bare is an Engine in a new namespace, which is known to be empty.
func bare(b *testing.B, l *lab.Lab) *Engine {
	h, err := l.Bare("pod")
	if err != nil {
		b.Fatal(err)
	}
	e, err := Open("pod", h.NetNS(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	apply(b, e, Ruleset{})
	return e
}

// BenchmarkFirstApply is the first table of a pod, in one batch of each kind and in steps. "worst" is the longest batch.
func BenchmarkFirstApply(b *testing.B) {
	l := lab.ForTest(b)
	for _, tt := range []struct {
		name  string
		sizes []int
		want  func(n int) Ruleset
	}{
		{"sets", []int{100, 1_000, 2_000, 3_000, 4_000}, func(n int) Ruleset { return manyPeers(n, 1) }},
		{"sets of 20", []int{100, 1_000, 2_000, 3_000}, func(n int) Ruleset { return manyPeers(n, 20) }},
		{"rules", []int{1_000, 5_000, 10_000, 20_000}, manyRules},
		{"policies", []int{1_000, 2_000}, manyPolicies},
		{"elements", []int{10_000, 100_000}, func(n int) Ruleset { return manyPeers(1, n) }},
		{"pods", []int{10_000, 100_000}, manyPods},
	} {
		for _, n := range tt.sizes {
			for name, budget := range map[string]time.Duration{"batch": time.Hour, "steps": batchBudget} {
				b.Run(fmt.Sprintf("%s=%d/%s", tt.name, n, name), func(b *testing.B) { firstApply(b, l, tt.want(n), budget) })
			}
		}
	}
}

// manyPods is a pod's ruleset with a group that has n pods in its second set.
func manyPods(n int) Ruleset {
	rs := manyPeers(1, 1)
	pods := &Set{Name: PodsSet(rs.Sets[0].Name), Elements: NewHosts(sets.V4, scattered(n))}
	return NewRuleset(append(rs.Sets, pods), rs.Chains)
}

// manyRules is a pod's ruleset with a policy of n rules that look up one set.
func manyRules(n int) Ruleset {
	rs := manyPeers(1, 1)
	policy := &Chain{Name: PolicyChain(Ingress, somePolicy)}
	for i := range n {
		r := ruleOf(rs.Sets[0].Name)
		r.Comment = fmt.Sprintf("namespace/policy ingress[%d]", i)
		policy.Rules = append(policy.Rules, r)
	}
	return NewRuleset(rs.Sets, override(rs.Chains, []*Chain{policy}, chainName))
}

// manyPolicies is a pod's ruleset with n policies, each with a rule and a set of its own.
func manyPolicies(n int) Ruleset {
	rs := manyPeers(n, 1)
	rules := rs.chain(PolicyChain(Ingress, somePolicy)).Rules
	closed := &Chain{Name: "ingress-net1"}
	chains := []*Chain{closed, rs.chain("prerouting")}
	for i := range n {
		c := &Chain{Name: PolicyChain(Ingress, fmt.Sprintf("%016x", i)), Rules: rules[i : i+1]}
		chains = append(chains, c)
		closed.Rules = append(closed.Rules, Rule{Statements: []expr.Statement{expr.Jump(c.Name)}, Comment: "namespace/policy"})
	}
	closed.Rules = append(closed.Rules, Rule{Statements: []expr.Statement{expr.Counter(), expr.Drop()}})
	return NewRuleset(rs.Sets, chains)
}

// manyPeers is a pod's ruleset with a policy of n rules.
func manyPeers(n, elements int) Ruleset {
	policy := &Chain{Name: PolicyChain(Ingress, somePolicy)}
	list := peerSets(n, elements)
	for _, s := range list {
		policy.Rules = append(policy.Rules, ruleOf(s.Name))
	}
	return NewRuleset(list, []*Chain{
		policy, isolated(sets.Addrs{}, 80).chain("prerouting"),
		{Name: "ingress-net1", Rules: []Rule{
			{Statements: []expr.Statement{expr.Jump(policy.Name)}, Comment: "namespace/policy"},
			{Statements: []expr.Statement{expr.Counter(), expr.Drop()}},
		}},
	})
}

func firstApply(b *testing.B, l *lab.Lab, want Ruleset, budget time.Duration) {
	var worst time.Duration
	batches := 0
	for b.Loop() {
		b.StopTimer()
		e := bare(b, l)
		x, done := e.exchange()
		b.StartTimer()
		batches = 0
		for next := range steps(e.have, want, 0, budget) {
			start := time.Now()
			p := makePlan(e.have, next, 0)
			if p.isEmpty() {
				continue
			}
			if err := e.send(x, &p, next); err != nil {
				b.Fatal(err)
			}
			worst = max(worst, time.Since(start))
			batches++
		}
		b.StopTimer()
		done()
		if err := e.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1e6, "ms/apply")
	b.ReportMetric(float64(worst.Nanoseconds())/1e6, "ms/worst-batch")
	b.ReportMetric(float64(batches), "batches")
}
