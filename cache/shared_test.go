package cache

import (
	"fmt"
	"sync"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"
)

// TestSharedPlans: pods share a plan as long as nothing that it depends on differs, and the plan ends with its last user.
func TestSharedPlans(t *testing.T) {
	c := newCluster(t, model.NewPolicy("p", "net-a", `{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}`))
	web := func(i int, labels string, attachments ...string) {
		upsert(c, model.NewPod(fmt.Sprintf("web-%d", i), labels, attachments...))
	}
	planOf := func(i int) *plan {
		settle(c)
		return c.pods[model.KeyOf(fmt.Sprintf("web-%d", i))].target.plan
	}
	for i := range 3 {
		web(i, fmt.Sprintf("app=web number=%d", i), fmt.Sprintf("net1 net-a 10.0.0.%d", i+1))
	}
	first := planOf(0)
	if first != planOf(1) || first != planOf(2) || first.shared.users != 3 {
		t.Errorf("3 pods alike: %p, %p, %p, %d users", first, planOf(1), planOf(2), first.shared.users)
	}
	web(1, "app=web", "net2 net-a 10.0.0.2")
	if planOf(1) == first {
		t.Error("a pod with another interface has the same plan")
	}
	web(2, "app=other", "net1 net-a 10.0.0.3")
	if planOf(2) == first || len(planOf(2).chosen) > 0 {
		t.Error("a pod that no policy selects has the plan")
	}
	upsert(c, model.NewPolicy("p", "net-a", `{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 81}]}]}`))
	second := planOf(0)
	if second == first || first.shared.users != 0 || second.shared.users != 1 {
		t.Errorf("after an edit: %d users of the old plan, %d of the new plan", first.shared.users, second.shared.users)
	}
	for i := range 3 {
		c.DeletePod(model.KeyOf(fmt.Sprintf("web-%d", i)))
	}
	settle(c)
	if ns := c.namespaces["default"]; len(c.chains) > 0 || ns != nil && len(ns.plans) > 0 {
		t.Errorf("left: %d chains, namespace %+v", len(c.chains), ns)
	}
}

// TestSharedPlansAtOnce makes plans of many pods at once, while policies and pods change. In the end each pod has the tables that a
// new cache gives it, and nothing is left of earlier plans.
func TestSharedPlansAtOnce(t *testing.T) {
	const pods, rounds = 20, 200
	pod := func(i, round int) string { return fmt.Sprintf("app=web tier=%d", (i+round)%2) }
	attachment := func(i int) string { return fmt.Sprintf("net1 net-a 10.0.0.%d", i+1) }
	name := func(i int) string { return fmt.Sprintf("web-%d", i) }
	spec := func(round int) string {
		return fmt.Sprintf(`{podSelector: {matchLabels: {tier: "%d"}}, ingress: [{from: [{podSelector: {}}], ports: [{port: %d}]}]}`, round%2, 80+round%3)
	}
	c := newCluster(t)
	for i := range pods {
		upsert(c, model.NewPod(name(i), pod(i, 0), attachment(i)))
	}
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for range rounds {
				for _, id := range c.TakeDirty() {
					c.Plan(id)
				}
			}
		})
	}
	for round := range rounds {
		upsert(c, model.NewPolicy("p", "net-a", spec(round)))
		upsert(c, model.NewPolicy("q", "net-a", spec(round/2)))
		upsert(c, model.NewPod(name(round%pods), pod(round%pods, round), attachment(round%pods)))
	}
	workers.Wait()
	settle(c)
	fresh := newCluster(t, model.NewPolicy("p", "net-a", spec(rounds-1)), model.NewPolicy("q", "net-a", spec((rounds-1)/2)))
	for i := range pods {
		last := i + (rounds-1-i)/pods*pods
		upsert(fresh, model.NewPod(name(i), pod(i, last), attachment(i)))
	}
	settle(fresh)
	for i := range pods {
		if got, want := renderPod(t, c, name(i)), renderPod(t, fresh, name(i)); got != want {
			t.Errorf("%s:\n%s\nwant:\n%s", name(i), got, want)
		}
	}
	users := 0
	for _, s := range c.namespaces["default"].plans {
		users += s.users
	}
	if users != pods {
		t.Errorf("%d users of plans, want %d", users, pods)
	}
}
