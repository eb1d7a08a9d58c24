package cache

import (
	"fmt"
	"slices"
	"testing"
)

// All tests of groups look into small crowds by index too.
func init() { fewPods = 0 }

// What the index of a crowd finds is what a look at each pod finds, also after pods have changed between two groups.
func TestCrowd(t *testing.T) {
	c := New(testOptions())
	for i := range 100 {
		c.UpsertPod(newPeer(fmt.Sprintf("default/pod-%d", i), fmt.Sprintf("app=a-%d tier=t-%d", i%7, i%3),
			fmt.Sprintf("net1 default/net-a 10.0.0.%d", i)))
	}
	crowd := crowd{c.network(keyOf("default/net-a")), c.namespace("default")}
	for step := range 20 {
		for _, pairs := range [][][]label{
			{{{"app", "a-1"}}},
			{{{"app", "a-1"}, {"app", "a-2"}, {"app", "gone"}}, {{"tier", "t-0"}}},
			{{{"app", "gone"}}},
		} {
			s := &selector{pairs: pairs}
			has := func(p *pod) bool {
				return !slices.ContainsFunc(pairs, func(one []label) bool {
					return !slices.ContainsFunc(one, func(l label) bool { return slices.Contains(p.labels, l) })
				})
			}
			want, got := map[*pod]int{}, map[*pod]int{}
			for p := range crowd.network.pods[crowd.namespace] {
				if has(p) {
					want[p]++
				}
			}
			for p := range c.candidates(crowd, s) {
				if has(p) {
					got[p]++
				}
			}
			if len(got) != len(want) {
				t.Fatalf("step %d, %v: %d pods, want %d", step, pairs, len(got), len(want))
			}
			for p := range want {
				if got[p] != 1 {
					t.Fatalf("step %d, %v: %s %d times", step, pairs, p.key, got[p])
				}
			}
		}
		c.UpsertPod(newPeer(fmt.Sprintf("default/pod-%d", step), fmt.Sprintf("app=a-%d", (step+1)%7),
			fmt.Sprintf("net1 default/net-a 10.0.0.%d", step)))
		c.DeletePod(keyOf(fmt.Sprintf("default/pod-%d", 99-step)))
	}
}
