package cache

import (
	"fmt"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"
)

// BenchmarkLocal is what events cost that concern all local pods. Each of the policies selects each local pod,
// and has a list of ports and a group of its own, with ten peers. The metric locked-µs is the longest time for which an event held the lock of the cache.
func BenchmarkLocal(b *testing.B) {
	for _, size := range []struct{ pods, policies int }{{11, 100}, {110, 100}, {1100, 100}, {110, 10}, {110, 1000}} {
		var held holds
		options := testOptions()
		options.LockHeld = held.add
		options.Limits = policy.DefaultLimits()
		options.Limits.PodPolicies, options.Limits.PodRules, options.Limits.PodSets = 1000, 10_000, 10_000
		c := New(options)
		upsert(c, model.NewNamespace("ns", ""))
		for i := range size.pods {
			upsert(c, model.NewPod(fmt.Sprintf("ns/local-%d", i), "app=local", fmt.Sprintf("net1 default/net-a 10.1.%d.%d", i>>8, i&255)))
		}
		for i := range 10 * size.policies {
			upsert(c, model.NewPeer(fmt.Sprintf("ns/peer-%d", i), fmt.Sprintf("app=peer-%d", i%size.policies),
				fmt.Sprintf("net1 default/net-a 10.2.%d.%d", i>>8, i&255)))
		}
		put := func(i, port int) {
			upsert(c, model.NewPolicy(fmt.Sprintf("ns/p-%d", i), "default/net-a", fmt.Sprintf(`
podSelector: {matchLabels: {app: local}}
ingress: [{from: [{podSelector: {matchLabels: {app: peer-%d}}}], ports: [{port: %d}]}]`, i, port)))
		}
		for i := range size.policies {
			put(i, 1000+i)
		}
		settle(c)
		if s := c.Shortfalls(); len(s) > 0 {
			b.Fatal(s[0])
		}
		events := 0
		bench := func(name string, do func(i int)) {
			b.Run(fmt.Sprintf("%s/pods=%d/policies=%d", name, size.pods, size.policies), func(b *testing.B) {
				b.ReportAllocs()
				held.reset()
				for b.Loop() {
					events++
					do(events)
					pods := c.TakeDirty()
					if len(pods) != size.pods {
						b.Fatalf("%d pods are dirty, want %d", len(pods), size.pods)
					}
					for _, pod := range pods {
						c.Plan(pod)
					}
				}
				b.ReportMetric(float64(held.worst)/float64(time.Microsecond), "locked-µs")
			})
		}
		bench("peer", func(i int) {
			addr := []string{"10.3.0.1", "10.3.0.2"}[i%2]
			upsert(c, model.NewPeer("ns/peer-0", "app=peer-0", "net1 default/net-a "+addr))
		})
		bench("policy", func(i int) { put(0, 1000+i%2*5000) })
		b.Run(fmt.Sprintf("Shortfalls/pods=%d/policies=%d", size.pods, size.policies), func(b *testing.B) {
			b.ReportAllocs()
			held.reset()
			for b.Loop() {
				c.Shortfalls()
			}
			b.ReportMetric(float64(held.worst)/float64(time.Microsecond), "locked-µs")
		})
	}
}
