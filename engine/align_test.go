package engine

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// numberedRules is a rule for each number; equal numbers are equal rules.
func numberedRules[T ~byte | ~int](numbers []T) []Rule {
	rules := make([]Rule, len(numbers))
	for i, n := range numbers {
		rules[i] = Rule{Statements: []expr.Statement{{Text: fmt.Sprintf("ip saddr @peers-%d", n)}, {Text: "accept"}}, Comment: "ns/policy"}
	}
	return rules
}

// checkAlignment returns the number of pairs.
func checkAlignment(t *testing.T, have, want []Rule) int {
	t.Helper()
	kept, pairs, last := alignRules(have, want), 0, -1
	if len(kept) != len(have) {
		t.Fatalf("%d answers for %d rules", len(kept), len(have))
	}
	for i, j := range kept {
		if j < 0 {
			continue
		}
		if j <= last || !have[i].equal(&want[j]) {
			t.Fatalf("rule %d is kept as %d, the one before as %d", i, j, last)
		}
		last = j
		pairs++
	}
	return pairs
}

// longestCommon is the length of the longest common subsequence, in quadratic time.
func longestCommon(have, want []Rule) int {
	row := make([]int, len(want)+1)
	for i := range have {
		before := slices.Clone(row)
		for j := range want {
			if have[i].equal(&want[j]) {
				row[j+1] = before[j] + 1
			} else {
				row[j+1] = max(before[j+1], row[j])
			}
		}
	}
	return row[len(want)]
}

// shapes are pairs of chains of about n rules that a policy's owner can make one after the other.
func shapes(n int) map[string][2][]int {
	r := rand.New(rand.NewPCG(1, 0))
	up := make([]int, n)
	for i := range up {
		up[i] = i
	}
	down := slices.Clone(up)
	slices.Reverse(down)
	shifted := slices.Clone(up)
	for i := range shifted {
		shifted[i] += n
	}
	few, others := make([]int, n), make([]int, n)
	for i := range few {
		few[i], others[i] = r.IntN(10), r.IntN(10)
	}
	same := make([]int, n)
	nested := slices.Concat(up[:n/2], up[:n/2]) // no rule is unique
	swapped := slices.Concat(down[:n/2], up[:n/2])
	shuffled := slices.Clone(up)
	r.Shuffle(n, func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	return map[string][2][]int{
		"first":    {{}, up},
		"last":     {up, {}},
		"equal":    {up, up},
		"distinct": {up, shifted},
		"in front": {up, slices.Concat([]int{-1}, up)},
		"two":      {up, slices.Concat([]int{-1}, up, []int{-2})},
		"reversed": {up, down},
		"shuffled": {up, shuffled},
		"repeated": {few, others},
		"same":     {same, slices.Concat([]int{1}, same[1:], []int{2})},
		"nested":   {nested, swapped},
	}
}

// TestAlignRulesIsLinear: however long a tenant makes a chain, and whatever it becomes then, the memory and the time for the
// difference are within linear bounds. (With a table of lengths, 4,000 rules would be 128 MB and 40,000 12.8 GB.)
func TestAlignRulesIsLinear(t *testing.T) {
	for _, n := range []int{4_000, 40_000} {
		for name, tt := range shapes(n) {
			have, want := numberedRules(tt[0]), numberedRules(tt[1])
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			checkAlignment(t, have, want)
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if bytes := int(after.TotalAlloc-before.TotalAlloc) / n; bytes > 2_000 {
				t.Fatalf("%s, %d rules: %d bytes a rule", name, n, bytes)
			}
			if most := time.Duration(n) * 100 * time.Microsecond; took > most { // a thousand times what a calm machine needs
				t.Fatalf("%s, %d rules: %v", name, n, took)
			}
		}
	}
}

// TestAlignRulesIsMinimal: where rules are unique, and after a few edits of any chain, no kept rule could be more.
func TestAlignRulesIsMinimal(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		n := 1 + r.IntN(60)
		permuted := numberedRules(r.Perm(n))
		others := numberedRules(r.Perm(n + r.IntN(10)))
		if got, best := checkAlignment(t, permuted, others), longestCommon(permuted, others); got != best {
			t.Fatalf("%d pairs of unique rules, want %d", got, best)
		}
		repeating := make([]int, n) // three of four rules are unique
		for i := range repeating {
			if repeating[i] = i; r.IntN(4) == 0 {
				repeating[i] = -r.IntN(3)
			}
		}
		edited := slices.Clone(repeating)
		for range 1 + r.IntN(3) {
			switch at := r.IntN(len(edited) + 1); {
			case at < len(edited) && r.IntN(2) == 0:
				edited = slices.Delete(edited, at, at+1)
			default:
				edited = slices.Insert(edited, at, 1000+r.IntN(100))
			}
		}
		have, want := numberedRules(repeating), numberedRules(edited)
		if got, best := checkAlignment(t, have, want), longestCommon(have, want); got != best {
			t.Fatalf("%d pairs after a few edits, want %d\n%v\n%v", got, best, repeating, edited)
		}
	}
}

// FuzzAlignRules takes each byte for a rule, so that most rules repeat. The plan that follows leads from the one chain to
// the other.
func FuzzAlignRules(f *testing.F) {
	f.Add([]byte("abcabc"), []byte("cabbac"))
	f.Add([]byte("abacadae-y"), []byte("bacadae-z"))
	f.Add([]byte("aaaaaaaa"), []byte("baaaac"))
	f.Fuzz(func(t *testing.T, from, to []byte) {
		checkRulePlan(t, numberedRules(from), numberedRules(to))
	})
}

// TestRulePlanWithRepeats is FuzzAlignRules with random chains of rules that repeat.
func TestRulePlanWithRepeats(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 2_000 {
		kinds := 1 + r.IntN(30)
		random := func() []Rule {
			numbers := make([]int, r.IntN(80))
			for i := range numbers {
				numbers[i] = r.IntN(kinds)
			}
			return numberedRules(numbers)
		}
		checkRulePlan(t, random(), random())
	}
}

// checkRulePlan plays the plan from one version of a chain to another into the model.
func checkRulePlan(t *testing.T, from, to []Rule) {
	t.Helper()
	checkAlignment(t, from, to)
	have := NewRuleset(nil, []*Chain{{Name: "c", Rules: from}})
	want := NewRuleset(nil, []*Chain{{Name: "c", Rules: to}})
	var m model
	m.reset()
	known := &table{}
	for _, rs := range []Ruleset{have, want} {
		p := makePlan(known, rs, 0)
		if err := m.apply(&p); err != nil {
			t.Fatal(err)
		}
		known = known.after(&p, rs)
		if diff := cmp.Diff(rulesetText(rs), m.text()); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		for i, h := range known.handles["c"] {
			if got := m.chains["c"][i].handle; got != h {
				t.Fatalf("handle %d is %d, remembered as %d", i, got, h)
			}
		}
	}
}

// BenchmarkAlignRules is the difference of two versions of a long chain.
func BenchmarkAlignRules(b *testing.B) {
	for _, n := range []int{400, 4_000, 40_000} {
		for name, tt := range shapes(n) {
			have, want := numberedRules(tt[0]), numberedRules(tt[1])
			b.Run(fmt.Sprintf("%s/n=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					alignRules(have, want)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/rule")
			})
		}
	}
}
