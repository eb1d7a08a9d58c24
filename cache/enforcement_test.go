package cache

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"
)

// states returns the policies of a pod, each with its time and the reasons of its gaps.
func states(c *Cache, pod, name string, a *Acknowledged) string {
	id, _ := c.LocalPod(model.KeyOf(pod))
	policies, ok := c.Enforcement(id, name, a)
	if !ok {
		return "not local"
	}
	var texts []string
	for _, p := range policies {
		text := p.Policy.Key.Name
		if !p.Since.IsZero() {
			text += fmt.Sprint(" since ", p.Since.Unix())
		}
		for _, g := range p.Gaps {
			text += strings.TrimRight(" "+g.Reason+" "+g.Interface, " ")
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

// TestEnforcementStates follows the policies of a pod, while the kernel acknowledges tables at the seconds 1, 2, and so on.
func TestEnforcementStates(t *testing.T) {
	web := model.NewPod("web", "app=web", "net1 net-a 10.0.0.1", "net2 net-b 10.0.1.1")
	c := newCluster(t, model.NewNAD("net-a", "macvlan"), model.NewNAD("net-b", "calico"), model.NewNAD("net-c", "macvlan"), web)
	id, _ := c.LocalPod(model.KeyOf("web"))
	var acknowledged *Acknowledged
	second := int64(0)
	acknowledge := func() {
		target, ok := c.Plan(id)
		if !ok {
			t.Fatal("no target")
		}
		second++
		acknowledged = acknowledged.Acknowledge(&target, time.Unix(second, 0))
	}
	is := func(want string) {
		t.Helper()
		if got := states(c, "web", "", acknowledged); got != want {
			t.Errorf("at second %d:\n%s\nwant\n%s", second, got, want)
		}
	}
	acknowledge()
	is("")
	if acknowledged != nil {
		t.Error("a pod without policies has a note")
	}
	p := model.NewPolicy("p", "net-a", `{ingress: []}`)
	upsert(c, p)
	is("p no_sandbox")
	c.SetSandbox(id.UID, Sandbox{ID: "s1"})
	is("p waiting")
	if _, ok := c.Plan(id); !ok {
		t.Fatal("no target")
	}
	is("p waiting") // planned, and not acknowledged
	acknowledge()
	is("p since 2")
	upsert(c, model.NewPolicy("q", "net-a, net-b", `{egress: [], policyTypes: [Egress]}`))
	upsert(c, model.NewPolicy("other", "net-c", `{ingress: []}`))
	upsert(c, model.NewPolicy("unselected", "net-a", `{podSelector: {matchLabels: {app: db}}, ingress: []}`))
	is("other no_network, p since 2 waiting, q unsupported_plugin net2 waiting")
	before := acknowledged
	acknowledge()
	is("other no_network, p since 2, q since 3 unsupported_plugin net2")
	if before.of(c.policies[model.KeyOf("q")], "s1") != (time.Time{}) {
		t.Error("an older state changed")
	}
	// An edit without effect, an equal policy in its place, and a plan with the same chains keep the state without a new table.
	p.ResourceVersion, p.UID = "2", "another"
	upsert(c, p)
	c.namespaces["default"].forgetPlans()
	c.markStale(c.targets[id])
	if target, _ := c.Plan(id); target.Rules == acknowledged.rules {
		t.Fatal("the plan is not new")
	}
	is("other no_network, p since 2, q since 3 unsupported_plugin net2")
	// An edit with an effect, and a policy that is made again.
	upsert(c, model.NewPolicy("p", "net-a", `{ingress: [{ports: [{port: 80}]}]}`))
	is("other no_network, p waiting, q since 3 unsupported_plugin net2 waiting")
	acknowledge()
	is("other no_network, p since 4, q since 3 unsupported_plugin net2")
	// A network that does not exist, and no network.
	remove(c, model.NewNAD("net-c", "macvlan"))
	is("other undefined_network, p since 4, q since 3 unsupported_plugin net2")
	upsert(c, model.NewPolicy("other", "", `{ingress: []}`))
	is("other undefined_network, p since 4, q since 3 unsupported_plugin net2")
	c.DeletePolicy(model.KeyOf("q"))
	c.DeletePolicy(model.KeyOf("other"))
	acknowledge()
	upsert(c, model.NewPolicy("q", "net-a", `{egress: [], policyTypes: [Egress]}`))
	acknowledge()
	is("p since 4, q since 6")
	if got := states(c, "web", "q", acknowledged); got != "q since 6" {
		t.Errorf("q alone: %s", got)
	}
	if got := states(c, "web", "none", acknowledged); got != "" {
		t.Errorf("a policy that does not exist: %s", got)
	}
	// Tables in the place of others, as for a limit of memory.
	closed := Target{Pod: id, Sandbox: Sandbox{ID: "s1"}, Tables: c.Closed(id, "node-memory")}
	acknowledged = acknowledged.Acknowledge(&closed, time.Unix(100, 0))
	is("p limit_exceeded, q limit_exceeded")
	acknowledge()
	is("p since 7, q since 7")
	// Another sandbox is another network namespace.
	c.SetSandbox(id.UID, Sandbox{ID: "s2"})
	is("p waiting, q waiting")
	acknowledge()
	is("p since 8, q since 8")
	c.DeletePod(model.KeyOf("web"))
	web.Annotations = map[string]string{StatusAnnotation: "x"}
	upsert(c, web)
	is("p since 8 unreadable_status, q since 8 unreadable_status")
	remove(c, web)
	is("not local")
}

// TestEnforcementGaps has a pod for each reason that depends on options, limits and definitions.
func TestEnforcementGaps(t *testing.T) {
	o := testOptions()
	o.NetworkPlugins = append(o.NetworkPlugins, "ipvlan")
	o.EnforcedBy, o.Bridge, o.Limits = map[string]string{"ovn": "OVN"}, BridgeMissing, policy.DefaultLimits()
	o.Limits.PodRules = 30
	c := New(o)
	upsert(c, model.NewNAD("net-a", "macvlan"))
	upsert(c, model.NewNAD("net-o", "ovn"))
	upsert(c, nadWith("net-l", `{"type": "ipvlan", "mode": "l3s"}`))
	upsert(c, model.NewPod("plain", "", "net1 net-a 10.0.0.1"))
	upsert(c, model.NewPod("vm", "kubevirt.io=virt-launcher", "net1 net-a 10.0.0.2"))
	upsert(c, model.NewPod("ovn", "", "net1 net-o 10.0.0.3"))
	upsert(c, model.NewPod("both", "", "net1 net-a 10.0.0.4", "net2 net-o 10.0.1.4"))
	upsert(c, model.NewPod("hidden", "", "net1 net-l 10.0.0.5"))
	upsert(c, model.NewPolicy("a", "net-a, net-o, net-l", `{ingress: []}`))
	upsert(c, model.NewPolicy("b", "net-a", `{ingress: [`+strings.Repeat(`{from: [{ipBlock: {cidr: 10.0.0.0/8}}]},`, 40)+`]}`))
	for _, pod := range []string{"plain", "vm", "ovn", "both", "hidden"} {
		id, _ := c.LocalPod(model.KeyOf(pod))
		c.SetSandbox(id.UID, Sandbox{ID: pod})
	}
	var got []string
	for _, id := range c.LocalPods("default") {
		target, _ := c.Plan(id)
		var a *Acknowledged
		got = append(got, id.Name+": "+states(c, id.Name, "", a.Acknowledge(&target, time.Unix(1, 0))))
	}
	want := []string{
		"both: a since 1 enforced_elsewhere net2, b limit_exceeded",
		"hidden: a since 1 not_enforceable net1, b no_network",
		"ovn: a enforced_elsewhere net1, b no_network",
		"plain: a since 1, b limit_exceeded",
		"vm: a since 1 bridge, b bridge limit_exceeded",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if pods := c.LocalPods("other"); len(pods) > 0 || len(c.LocalPods("")) != 5 {
		t.Errorf("pods of another namespace: %v", pods)
	}
}

// BenchmarkAcknowledge measures the price of a change of members, of a change of policies, and of an answer, in a pod with 100 policies.
func BenchmarkAcknowledge(b *testing.B) {
	c := newCluster(b, model.NewNAD("net-a", "macvlan"), model.NewPod("web", "app=web", "net1 net-a 10.0.0.1"))
	for i := range 100 {
		upsert(c, model.NewPolicy(fmt.Sprintf("p%d", i), "net-a", `{ingress: []}`))
	}
	id, _ := c.LocalPod(model.KeyOf("web"))
	c.SetSandbox(id.UID, Sandbox{ID: "s1"})
	first, _ := c.Plan(id)
	var none *Acknowledged
	a := none.Acknowledge(&first, time.Now())
	b.Run("members", func(b *testing.B) {
		for b.Loop() {
			a.Acknowledge(&first, time.Now())
		}
	})
	earlier := &Acknowledged{a.sandbox, Rules{&plan{chosen: first.Rules.plan.chosen}}, a.since}
	b.Run("policies", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			earlier.Acknowledge(&first, time.Now())
		}
	})
	b.Run("answer", func(b *testing.B) {
		b.ReportAllocs()
		held, n := time.Duration(0), 0
		c.options.LockHeld = func(d time.Duration) { held, n = held+d, n+1 }
		for b.Loop() {
			c.Enforcement(id, "", a)
		}
		b.ReportMetric(float64(held.Nanoseconds())/float64(n), "ns-of-lock/op")
	})
}
