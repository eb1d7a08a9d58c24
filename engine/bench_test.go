package engine

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// scattered is n addresses, none a neighbor of another.
func scattered(n int) sets.Addrs {
	list := make([]sets.AddrRange, 0, n)
	addr := netip.MustParseAddr("10.0.0.0")
	for range n {
		list = append(list, sets.Single(addr))
		addr = addr.Next().Next()
	}
	return sets.NewAddrs(list...)
}

var oneMore = sets.Single(netip.MustParseAddr("10.0.0.101"))

// next is the table as a cache makes it for the next step: the set that changes is another version, which nobody has seen.
func next(rs Ruleset) Ruleset {
	list := slices.Clone(rs.Sets)
	changed := "peers-v4"
	if rs.set(PodsSet(changed)) != nil {
		changed = PodsSet(changed)
	}
	for i, s := range list {
		if s.Name == changed {
			list[i] = &Set{Name: s.Name, Comment: s.Comment, Elements: s.Elements}
		}
	}
	return Ruleset{Sets: list, Chains: rs.Chains}
}

// withAndWithout is the table without and with one more peer; all else is shared, as the cache shares it.
func withAndWithout(peers sets.Addrs) [2]Ruleset { return twoVersions(peers, peers.Insert(oneMore)) }

func twoVersions(peers, more sets.Addrs) [2]Ruleset {
	without := isolated(peers, 80)
	with := Ruleset{Sets: slices.Clone(without.Sets), Chains: without.Chains}
	for i, s := range with.Sets {
		if s.Name == "peers-v4" {
			with.Sets[i] = &Set{Name: s.Name, Comment: s.Comment, Elements: Addrs{sets.V4, more}}
		}
	}
	return [2]Ruleset{without, with}
}

// twoSets is the ruleset of isolated for a group whose peers of IPv4 have a hash set.
func twoSets(rs Ruleset) Ruleset {
	set, c := rs.set("peers-v4"), rs.chain("ingress-net1")
	peers := set.Elements.(Addrs).Addrs
	list := []*Set{set.like(Addrs{Family: sets.V4}), {Name: PodsSet(set.Name), Comment: set.Comment, Elements: NewHosts(sets.V4, peers)}}
	split := &Chain{Name: c.Name}
	for _, r := range c.Rules {
		if slices.Contains(r.summary().Sets, set.Name) {
			pods := slices.Concat([]expr.Statement{expr.SourceIn(sets.V4, PodsSet(set.Name))}, r.Statements[1:])
			split.Rules = append(split.Rules, Rule{Statements: pods, Comment: r.Comment})
		}
		split.Rules = append(split.Rules, r)
	}
	return NewRuleset(override(rs.Sets, list, setName), override(rs.Chains, []*Chain{split}, chainName))
}

// twoSetsEach returns twoSets of two versions that share all but the hash set, as the cache makes them.
func twoSetsEach(versions [2]Ruleset) [2]Ruleset {
	one, two := twoSets(versions[0]), twoSets(versions[1])
	pods := two.set(PodsSet("peers-v4"))
	return [2]Ruleset{one, {Sets: override(one.Sets, []*Set{pods}, setName), Chains: one.Chains}}
}

// pause is the time between two changes that come alone: the core has done other work.
const pause = 8 * time.Millisecond

// BenchmarkOnePeer is one peer that joins and leaves a group of n, one batch each. In "apply" and "alone" through Apply, without
// and with a pause between the batches; in "floor" the same two batches are encoded in advance: each costs one system call to
// send it and another to read its answer.
func BenchmarkOnePeer(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000, 100_000} {
		// Without 10.0.0.100 and .102: the peer that comes has no neighbor and changes one element only.
		without := scattered(n).Remove(sets.AddrRange{From: netip.MustParseAddr("10.0.0.100"), To: netip.MustParseAddr("10.0.0.102")})
		one := withAndWithout(without)
		benchmarkOnePeer(b, fmt.Sprintf("n=%d/sets=1", n), one)
		benchmarkOnePeer(b, fmt.Sprintf("n=%d/sets=2", n), twoSetsEach(one))
	}
}

func benchmarkOnePeer(b *testing.B, name string, states [2]Ruleset) {
	b.Run(name+"/apply", func(b *testing.B) {
		_, e := pod(b, lab.ForTest(b), "pod")
		apply(b, e, states[0])
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			apply(b, e, next(states[(i+1)%2]))
		}
	})
	b.Run(name+"/alone", func(b *testing.B) {
		_, e := pod(b, lab.ForTest(b), "pod")
		apply(b, e, states[0])
		for i := 0; b.Loop(); i++ {
			b.StopTimer()
			time.Sleep(pause)
			b.StartTimer()
			apply(b, e, next(states[(i+1)%2]))
		}
	})
	b.Run(name+"/floor", func(b *testing.B) {
		_, e := pod(b, lab.ForTest(b), "pod")
		apply(b, e, states[0])
		var batches [2]batch
		for i := range batches {
			p := makePlan(&table{ruleset: states[i]}, states[1-i], 0)
			if err := batches[i].encode(&p, nfnl.AnyGeneration); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if err := e.transport.Do(&batches[i%2].Messages, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkPlanAndEncode is the work in user space of one peer that joins or leaves.
func BenchmarkPlanAndEncode(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000, 100_000} {
		peers := scattered(n)
		one := withAndWithout(peers)
		benchmarkPlanAndEncode(b, fmt.Sprintf("n=%d/sets=1", n), one)
		benchmarkPlanAndEncode(b, fmt.Sprintf("n=%d/sets=2", n), twoSetsEach(one))
	}
}

func benchmarkPlanAndEncode(b *testing.B, name string, states [2]Ruleset) {
	b.Run(name, func(b *testing.B) {
		var x batch
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			p := makePlan(&table{ruleset: states[i%2]}, next(states[(i+1)%2]), 0)
			if err := x.encode(&p, 1); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkFirstEncode is the whole table for n peers as messages, in a buffer that has been used before.
func BenchmarkFirstEncode(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		rs := isolated(scattered(n), 80)
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			var x batch
			b.ReportAllocs()
			for b.Loop() {
				p := makePlan(&table{}, rs, 0)
				if err := x.encode(&p, 1); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/element")
		})
	}
}

// BenchmarkSharedDelta is a namespace of n pods that joins the same group in 100 tables: plan and encoding of all.
func BenchmarkSharedDelta(b *testing.B) {
	for _, n := range []int{1, 1_000} {
		peers := scattered(10_000)
		states := twoVersions(peers, peers.Union(block(200, n)))
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			var x batch
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				want := next(states[(i+1)%2])
				for range 100 {
					p := makePlan(&table{ruleset: states[i%2]}, want, 0)
					if err := x.encode(&p, 1); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
