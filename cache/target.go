package cache

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Target is a local pod and what its network namespace must hold.
type Target struct {
	Pod     Key
	UID     types.UID
	Sandbox Sandbox
	Ruleset engine.Ruleset // zero: no table
}

// target is a local pod.
type target struct {
	pod      *pod
	selected []*policy // that select the pod, sorted
	plan     *plan
	stale    bool // the plan may be another one
	members  bool // the plan stands, but members of its groups have changed
	ruleset  engine.Ruleset
}

// plan is what a pod's ruleset is made of, apart from members.
type plan struct {
	policyChains []*policyChain
	own          map[string]ownChain // the pod's own chains, by name
	chains       []*engine.Chain
	sets         []setRef              // sorted by name
	replies      [len(directions)]bool // what they answer is asked for
}

// ownChain is a chain of one pod, with what it was made of: while that is the same, the chain stays the same pointer.
type ownChain struct {
	source string
	chain  *engine.Chain
}

// setRef is a set that stays as it is, or that of one family of a group.
type setRef struct {
	name   string
	fixed  *engine.Set
	group  *group
	family int // index
}

// guard is an isolated interface and the policies that isolate it.
type guard struct {
	iface    string
	policies []*policy // sorted
}

// Target returns what the pod's network namespace must hold. It is false for a pod that is not there, has terminated,
// is on another node or on the host's network, and for one whose interfaces are not known, since neither its
// network status nor what it asks for can be read: there is nothing to do for it, and what is in force stays in force.
func (c *Cache) Target(key Key) (Target, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.targets[key]
	if t == nil || !t.pod.known {
		return Target{}, false
	}
	return Target{Pod: key, UID: t.pod.uid, Sandbox: c.sandboxOf(t.pod), Ruleset: c.rulesetOf(t)}, true
}

// Ruleset returns the ruleset of a pod's Target, empty when it has none.
func (c *Cache) Ruleset(key Key) engine.Ruleset {
	t, _ := c.Target(key)
	return t.Ruleset
}

// setLocal makes a pod a target, or takes that back.
func (c *Cache) setLocal(p *pod, local bool) {
	if local == (p.target != nil) {
		return
	}
	c.dirty[p.key] = struct{}{}
	if local {
		p.target = &target{pod: p, plan: &plan{}, stale: true}
		p.target.selected = c.policiesOf(p)
		c.targets[p.key] = p.target
		return
	}
	c.releasePlan(p.target, p.target.plan, &plan{})
	delete(c.targets, p.key)
	p.target = nil
}

// retarget brings a target up to date with its pod, of which before is what it was.
func (c *Cache) retarget(t *target, before *podState) {
	p := t.pod
	old := t.selected
	t.selected = c.policiesOf(p)
	byName := slices.ContainsFunc(t.selected, func(p *policy) bool {
		s := p.sections[ingress]
		return s != nil && s.byName
	})
	switch {
	case p.known != before.known,
		!slices.Equal(old, t.selected),
		len(t.selected) > 0 && !slices.EqualFunc(before.attachments, p.attachments, attachment.samePlace),
		byName && !slices.Equal(before.ports, p.ports):
		c.markStale(t)
	}
}

// policiesOf returns the policies that select a pod, sorted.
func (c *Cache) policiesOf(p *pod) []*policy {
	selected := p.namespace.policies.appendCandidates(nil, p.labels)
	selected = slices.DeleteFunc(selected, func(policy *policy) bool { return !policy.selects(p) })
	slices.SortFunc(selected, comparePolicies)
	return selected
}

func (c *Cache) markStale(t *target) {
	t.stale = true
	c.dirty[t.pod.key] = struct{}{}
}

func (c *Cache) markMembers(t *target) {
	t.members = true
	c.dirty[t.pod.key] = struct{}{}
}

// rulesetOf makes of the plan what is not made yet.
func (c *Cache) rulesetOf(t *target) engine.Ruleset {
	if t.stale {
		before := t.plan
		t.plan = c.newPlan(t, before)
		c.releasePlan(t, before, t.plan)
	}
	if t.stale || t.members {
		list := make([]*engine.Set, 0, len(t.plan.sets))
		for _, r := range t.plan.sets {
			if r.fixed != nil {
				list = append(list, r.fixed)
			} else {
				list = append(list, r.group.set(r.family))
			}
		}
		t.ruleset = engine.Ruleset{Sets: list, Chains: t.plan.chains}
	}
	t.stale, t.members = false, false
	return t.ruleset
}

// releasePlan lets go of what a plan uses and the next one does not. The next one is made before, so that a group that
// both use stays active.
func (c *Cache) releasePlan(t *target, p, next *plan) {
	for _, pc := range p.policyChains {
		if !slices.Contains(next.policyChains, pc) {
			c.releaseChain(pc, t)
		}
	}
}

// newPlan makes a plan, with what stays the same from the one before.
func (c *Cache) newPlan(t *target, before *plan) *plan {
	p := &plan{own: map[string]ownChain{}}
	used := map[*section]bool{}
	var guards [len(directions)][]guard
	for _, d := range directions {
		guards[d] = c.guards(t, d)
	}
	for _, d := range directions {
		if len(guards[d]) == 0 {
			continue
		}
		var source []string
		for _, g := range guards[d] {
			source = append(source, g.iface)
			c.keepInterface(p, before, d, g, isGuarded(guards[d.opposite()], g.iface))
			for _, policy := range g.policies {
				if s := policy.sections[d]; !used[s] {
					used[s] = true
					p.policyChains = append(p.policyChains, c.acquireChain(s, t))
				}
			}
		}
		p.keep(before, string(d.hook()), strings.Join(source, "/"), func() *engine.Chain { return baseChain(d, guards[d]) })
		p.share(c.common[d], p.replies[d])
	}
	for _, pc := range p.policyChains {
		p.chains = append(p.chains, pc.chain)
		if p.replies[pc.section.direction] {
			p.chains = append(p.chains, pc.replies)
		}
		p.refer(pc)
	}
	p.chains = engine.NewRuleset(nil, p.chains).Chains
	slices.SortFunc(p.sets, func(a, b setRef) int { return cmp.Compare(a.name, b.name) })
	p.sets = slices.CompactFunc(p.sets, func(a, b setRef) bool { return a.name == b.name })
	return p
}

// keepInterface adds the chains of an isolated interface.
func (c *Cache) keepInterface(p, before *plan, d direction, g guard, otherWayIsolated bool) {
	revoke := c.options.RevokeEstablished
	source := g.source()
	p.keep(before, interfaceChainName(d, g.iface), fmt.Sprint(source, " ", otherWayIsolated), func() *engine.Chain {
		return interfaceChain(d, g, revoke, otherWayIsolated)
	})
	if revoke && otherWayIsolated {
		p.replies[d] = true
		p.keep(before, repliesPrefix+interfaceChainName(d, g.iface), source, func() *engine.Chain { return repliesChain(d, g) })
	}
}

func isGuarded(guards []guard, iface string) bool {
	return slices.ContainsFunc(guards, func(g guard) bool { return g.iface == iface })
}

// keep adds a chain of the pod's own: the one of the plan before, if it was made of the same.
func (p *plan) keep(before *plan, name, source string, build func() *engine.Chain) {
	own, ok := before.own[name]
	if !ok || own.source != source {
		own = ownChain{source, build()}
	}
	p.own[name] = own
	p.chains = append(p.chains, own.chain)
}

// share adds what all pods have.
func (p *plan) share(c commonPart, replies bool) {
	p.chains = append(p.chains, c.chains...)
	if replies {
		p.chains = append(p.chains, c.replies...)
	}
	for _, s := range c.sets {
		p.sets = append(p.sets, setRef{name: s.Name, fixed: s})
	}
}

// refer adds the sets of a policy's chain.
func (p *plan) refer(pc *policyChain) {
	for _, s := range pc.ports {
		p.sets = append(p.sets, setRef{name: s.Name, fixed: s})
	}
	for _, g := range pc.groups {
		for i, f := range sets.Families {
			p.sets = append(p.sets, setRef{name: g.spec.setName(f), group: g, family: i})
		}
	}
}

// source is what the chain of an interface is made of.
func (g guard) source() string {
	names := []string{g.iface}
	for _, p := range g.policies {
		names = append(names, p.key.String())
	}
	return strings.Join(names, " ")
}

// guards returns the interfaces of a pod that are isolated in a direction, sorted.
func (c *Cache) guards(t *target, d direction) []guard {
	var guards []guard
	for _, a := range t.pod.attachments {
		if !c.isolates(a.network) {
			continue
		}
		for _, p := range t.selected {
			if p.sections[d] == nil || !slices.Contains(p.networks, a.network) {
				continue
			}
			if n := len(guards); n == 0 || guards[n-1].iface != a.iface {
				guards = append(guards, guard{iface: a.iface})
			}
			g := &guards[len(guards)-1]
			if !slices.Contains(g.policies, p) {
				g.policies = append(g.policies, p)
			}
		}
	}
	for _, g := range guards {
		slices.SortFunc(g.policies, comparePolicies)
	}
	return guards
}
