package cache

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"
)

// holds keeps how long the lock of a cache was held.
type holds struct {
	mu    sync.Mutex
	count int
	total time.Duration
	worst time.Duration
}

func (h *holds) add(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count++
	h.total += d
	h.worst = max(h.worst, d)
}

func (h *holds) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count, h.total, h.worst = 0, 0, 0
}

// tenant is a cache with pods of a tenant, whose objects are as large as the limits admit.
type tenant struct {
	*Cache
	*testing.B
	held   holds
	limits policy.Limits
	locals int
}

func newTenant(b *testing.B, pods, locals int) *tenant {
	t := &tenant{B: b, limits: policy.DefaultLimits(), locals: locals}
	o := testOptions()
	o.LockHeld = t.held.add
	t.Cache = New(o)
	upsert(t.Cache, model.NewNamespace("evil", "team=evil"))
	for i := range 1000 {
		upsert(t.Cache, model.NewNamespace(fmt.Sprintf("ns-%d", i), fmt.Sprintf("team=t-%d", i%5)))
	}
	for i := range pods {
		upsert(t.Cache, t.pod(i, "a"))
	}
	return t
}

// pod is pod i of the tenant; the first pods are local.
func (t *tenant) pod(i int, label string) *corev1.Pod {
	p := model.NewPeer(fmt.Sprintf("evil/pod-%d", i), fmt.Sprintf("app=app-%d all=yes version=%s", i%100, label),
		fmt.Sprintf("net1 evil/net-0 10.%d.%d.%d", i>>16, i>>8&255, i&255))
	if i < t.locals {
		p.Spec.NodeName = model.Node
	}
	return p
}

// policy compiles a policy of the tenant.
func (t *tenant) policy(name string, networks int, spec string) *policy.Policy {
	var names []string
	for i := range networks {
		names = append(names, fmt.Sprintf("net-%d", i))
	}
	list := strings.Join(names, ",")
	return policy.Compile(policy.Object{Key: Key{Namespace: "evil", Name: name}, Networks: &list, Spec: json.RawMessage(spec)}, &t.limits)
}

// settle does the work of the workers.
func (t *tenant) settle() {
	for _, id := range t.TakeDirty() {
		t.Plan(id)
	}
}

// repeat joins n texts by commas.
func repeat(n int, text func(i int) string) string {
	var parts []string
	for i := range n {
		parts = append(parts, text(i))
	}
	return strings.Join(parts, ", ")
}

// rulesOf is a spec with rules that each have so many peers.
func rulesOf(rules, peers int, peer func(i int) string) string {
	return fmt.Sprintf(`{"podSelector": {}, "ingress": [%s]}`, repeat(rules, func(r int) string {
		return fmt.Sprintf(`{"from": [%s], "ports": [{"port": %d}]}`, repeat(peers, func(p int) string { return peer(r*peers + p) }), r+1)
	}))
}

// BenchmarkLockAtLimits does what a tenant can do with objects at the limits. What counts is the metric worst-ms, the
// longest time for which the lock was held: all events and all pods of the node wait as long.
func BenchmarkLockAtLimits(b *testing.B) {
	appPeer := func(i int) string { return fmt.Sprintf(`{"podSelector": {"matchLabels": {"app": "app-%d"}}}`, i%5000) }
	everywhere := func(i int) string {
		return fmt.Sprintf(`{"namespaceSelector": {"matchExpressions": [{"key": "k%d", "operator": "DoesNotExist"}]}}`, i)
	}
	block := func(i int) string { return fmt.Sprintf(`{"ipBlock": {"cidr": "10.%d.%d.0/25"}}`, i>>8&255, i&255) }
	for _, tc := range []struct {
		name         string
		pods, locals int
		run          func(t *tenant) func(i int)
	}{
		{"policy with many rules", 10_000, 250, func(t *tenant) func(int) {
			return func(i int) {
				t.UpsertPolicy(t.policy("p", 1, rulesOf(1000, 5, func(n int) string { return appPeer(n + i) })))
			}
		}},
		{"policy with many peers everywhere", 10_000, 250, func(t *tenant) func(int) {
			return func(i int) {
				t.UpsertPolicy(t.policy("p", 1, rulesOf(200, 1, func(n int) string { return everywhere(n + i) })))
			}
		}},
		{"policy with many blocks", 10_000, 250, func(t *tenant) func(int) {
			return func(i int) {
				t.UpsertPolicy(t.policy("p", 1, rulesOf(1, 20_000, func(n int) string { return block(n + i) })))
			}
		}},
		{"policy with many networks", 10_000, 250, func(t *tenant) func(int) {
			return func(i int) {
				t.UpsertPolicy(t.policy("p", 100, rulesOf(50, 100, func(n int) string { return appPeer(n + i) })))
			}
		}},
		{"many policies come and go", 10_000, 250, func(t *tenant) func(int) {
			for n := range 1000 {
				t.UpsertPolicy(t.policy(fmt.Sprint("p", n), 1, rulesOf(1, 1, appPeer)))
			}
			return func(i int) {
				t.UpsertPolicy(t.policy(fmt.Sprint("p", i%1000), 1, rulesOf(1, 2, func(n int) string { return appPeer(n + i) })))
				if i%10 == 9 {
					t.DeletePolicy(Key{Namespace: "evil", Name: fmt.Sprint("p", i%1000)})
				}
			}
		}},
		{"namespace over its limit", 1000, 250, func(t *tenant) func(int) {
			for n := range 30 {
				t.UpsertPolicy(t.policy(fmt.Sprint("p", n), 1, rulesOf(700, 5, appPeer)))
			}
			return func(i int) {
				t.UpsertPolicy(t.policy(fmt.Sprint("p", i%30), 1, rulesOf(700, 5, func(n int) string { return appPeer(n + i) })))
			}
		}},
		{"peer of many groups changes", 10_000, 250, func(t *tenant) func(int) {
			t.UpsertPolicy(t.policy("p", 1, rulesOf(1000, 5, func(i int) string {
				return fmt.Sprintf(`{"podSelector": {"matchExpressions": [{"key": "k%d", "operator": "DoesNotExist"}]}}`, i)
			})))
			t.settle()
			return func(i int) { upsert(t.Cache, t.pod(9999, fmt.Sprint("v", i))) }
		}},
		{"namespace is relabeled", 10_000, 250, func(t *tenant) func(int) {
			t.UpsertPolicy(t.policy("p", 1, rulesOf(200, 1, func(i int) string {
				return fmt.Sprintf(`{"namespaceSelector": {"matchLabels": {"l%d": "x"}}}`, i)
			})))
			t.settle()
			return func(i int) { upsert(t.Cache, model.NewNamespace("evil", fmt.Sprintf("team=evil l%d=x", i%200))) }
		}},
		{"network changes its type", 10_000, 250, func(t *tenant) func(int) {
			t.UpsertPolicy(t.policy("p", 1, rulesOf(100, 5, appPeer)))
			return func(i int) { upsert(t.Cache, model.NewNAD("evil/net-0", []string{"macvlan", "calico"}[i%2])) }
		}},
		{"pod with many interfaces", 1000, 250, func(t *tenant) func(int) {
			t.UpsertPolicy(t.policy("p", 100, rulesOf(100, 5, appPeer)))
			return func(i int) {
				p := t.pod(0, "a")
				var attachments []string
				for n := range 64 {
					attachments = append(attachments, fmt.Sprintf("i%d evil/net-%d 10.200.%d.1 10.200.%d.2", n, (n+i)%100, n, n))
				}
				model.SetStatus(p, attachments...)
				upsert(t.Cache, p)
			}
		}},
	} {
		b.Run(tc.name, func(b *testing.B) {
			t := newTenant(b, tc.pods, tc.locals)
			step := tc.run(t)
			t.settle()
			t.held.reset()
			for i := 0; b.Loop(); i++ {
				step(i)
				t.settle()
			}
			b.ReportMetric(float64(t.held.worst.Microseconds())/1000, "worst-ms")
			b.ReportMetric(float64(t.held.total.Microseconds())/1000/float64(b.N), "held-ms/op")
			b.ReportMetric(float64(t.held.count)/float64(b.N), "locks/op")
		})
	}
}
