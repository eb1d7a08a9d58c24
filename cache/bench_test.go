package cache

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"
)

const (
	benchPolicies   = 2000
	benchNamespaces = 50
)

// benchPod is pod i of the cluster: one of 200 applications, in one of 50 namespaces, with the labels that charts give.
func benchPod(i int) *corev1.Pod {
	ns, app := i%benchNamespaces, i/benchNamespaces%200
	p := model.NewPeer(fmt.Sprintf("ns-%d/pod-%d", ns, i),
		fmt.Sprintf("app=app-%d app.kubernetes.io/instance=app-%d pod-template-hash=%d team=t-%d env=prod", app, app, app, app%10),
		fmt.Sprintf("eth0 cluster-net 10.%d.%d.%d", 128+i>>16, i>>8&255, i&255),
		fmt.Sprintf("net1 default/net-a 10.%d.%d.%d fd00::%x", i>>16, i>>8&255, i&255, i+1))
	return model.WithPorts(p, "http=8080/TCP")
}

// benchPolicy is policy i: 40 in each namespace, each for all its pods, from two applications and a block. Each has its
// own peer group.
func benchPolicy(i int) string {
	app := i / benchNamespaces
	return fmt.Sprintf(`
ingress:
- from:
  - podSelector: {matchLabels: {app: app-%d, env: prod}}
  - namespaceSelector: {matchLabels: {team: t-%d}}
    podSelector: {matchLabels: {app: app-%d}}
  - ipBlock: {cidr: 192.168.%d.0/24}
  ports: [{port: 80}, {port: 443}]`, app+1, i%5, app+100, i%256)
}

// benchCluster has pods, 2000 policies and 100 local pods, two in each namespace, whose tables have been read: all peer
// groups are active.
func benchCluster(b *testing.B, pods int) *Cache {
	options := testOptions()
	options.Limits = policy.DefaultLimits()
	options.Limits.NamespaceAddresses = 3 * pods // a cluster of this size needs it
	c := New(options)
	for i := range benchNamespaces {
		upsert(c, model.NewNamespace(fmt.Sprintf("ns-%d", i), fmt.Sprintf("team=t-%d", i%5)))
	}
	for i := range pods {
		p := benchPod(i)
		if i < 100 {
			p.Spec.NodeName = model.Node
		}
		upsert(c, p)
	}
	for i := range benchPolicies {
		if ps := upsert(c, model.NewPolicy(fmt.Sprintf("ns-%d/p-%d", i%benchNamespaces, i), "default/net-a", benchPolicy(i))); ps != nil {
			b.Fatal(ps)
		}
	}
	settle(c)
	return c
}

var benchSizes = []int{1_000, 10_000, 100_000}

// BenchmarkPodEvent is a pod of the cluster that gets another address, which a single group or ten groups notice, and the
// tables of the local pods that have them.
func BenchmarkPodEvent(b *testing.B) {
	for _, n := range benchSizes {
		c := benchCluster(b, n)
		for groups, app := range map[int]string{1: "app-1", 10: "app-100"} {
			one, two := benchPod(900), benchPod(900)
			one.Labels["app"], two.Labels["app"] = app, app
			model.SetStatus(two, "eth0 cluster-net 10.128.0.50", "net1 default/net-a 10.200.0.1 fd00::ffff:1")
			versions := []*corev1.Pod{two, one}
			upsert(c, one)
			if got := len(c.pods[model.KeyOf("ns-0/pod-900")].groups); got != groups {
				b.Fatalf("in %d groups, want %d", got, groups)
			}
			b.Run(fmt.Sprintf("pods=%d/groups=%d", n, groups), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					upsert(c, versions[i%2])
					c.TakeDirty()
				}
			})
			b.Run(fmt.Sprintf("pods=%d/groups=%d/tables", n, groups), func(b *testing.B) {
				b.ReportAllocs()
				dirty := 0
				for i := 0; b.Loop(); i++ {
					upsert(c, versions[i%2])
					for _, k := range c.TakeDirty() {
						c.Plan(k)
						dirty++
					}
				}
				b.ReportMetric(float64(dirty)/float64(b.N), "dirty/op")
			})
		}
		b.Run(fmt.Sprintf("pods=%d/nobody's", n), func(b *testing.B) {
			one, two := benchPod(950), benchPod(950)
			one.Labels["app"], two.Labels["app"] = "x", "y"
			versions := []*corev1.Pod{two, one}
			upsert(c, one)
			c.TakeDirty()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				upsert(c, versions[i%2])
			}
			if k := c.TakeDirty(); k != nil {
				b.Fatal(k)
			}
		})
		b.Run(fmt.Sprintf("pods=%d/same", n), func(b *testing.B) {
			p := benchPod(950)
			upsert(c, p)
			b.ReportAllocs()
			for b.Loop() {
				upsert(c, p)
			}
		})
	}
}

// BenchmarkActivate is the first local pod to use a group of all pods, and the last pod to stop.
func BenchmarkActivate(b *testing.B) {
	for _, n := range benchSizes {
		c := benchCluster(b, n)
		all := model.NewPolicy("ns-0/all", "default/net-a", `{ingress: [{from: [{namespaceSelector: {}}]}]}`)
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				upsert(c, all)
				settle(c)
				c.DeletePolicy(model.KeyOf("ns-0/all"))
				settle(c)
			}
		})
	}
}

// BenchmarkRelabelNamespace is a namespace of a fiftieth of all pods that enters a scope and leaves it.
func BenchmarkRelabelNamespace(b *testing.B) {
	for _, n := range benchSizes {
		c := benchCluster(b, n)
		in, out := model.NewNamespace("ns-7", "team=t-0"), model.NewNamespace("ns-7", "team=none")
		b.Run(fmt.Sprintf("pods=%d", n/benchNamespaces), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%2 == 0 {
					upsert(c, in)
				} else {
					upsert(c, out)
				}
				c.TakeDirty()
			}
		})
	}
}

// BenchmarkStart is a whole cluster from nothing.
func BenchmarkStart(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		benchCluster(b, 10_000)
	}
}
