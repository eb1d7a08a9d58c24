package cache

import (
	"fmt"
	"slices"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// plan describes the tables of a pod, apart from the members of groups. It never changes, so a table with newer members
// is made from the same plan. Pods share it, see sharedPlan.
type plan struct {
	shared *sharedPlan // nil: of noPlan, and of a plan that closes a pod
	last   lastTables
	byName bool // a policy has a port by name

	// The chains of the chosen policies, one for each direction that a policy isolates. Other pods may use the same chains.
	policyChains []*policyChain
	own          map[ownKey]ownChain                      // chains that belong to no policy and depend on the pod
	chains       [len(expr.TableFamilies)][]*engine.Chain // all chains, by the family of the table, sorted by name
	sets         []setRef                                 // sorted by name
	fullBridge   bool                                     // the table of family bridge has the sets and policies too
	hasBridge    bool                                     // see Target.HasBridge
	isolated     [len(engine.Directions)][]isolation      // the interfaces with a chain
	auditOnly    bool                                     // see Target.AuditOnly
	ports        []string                                 // see Target.BridgePorts
	chosen       []*installed                             // policies whose rules apply, sorted
	problems     []PolicyProblem                          // problems of policies that are left out; only the first of them
	limited      int                                      // number of policies that are left out
	wantsRoom    bool                                     // a policy was left out because its groups have too many members
	unsupported  []unsupported                            // uses of networks that are not isolated; only the first of them
	unenforced   []unenforceable                          // isolated interfaces whose packets the kernel hides from rules; only the first of them
}

// unsupported is a network of the pod that a policy is for, and that nobody isolates because of its plugin type.
type unsupported struct {
	policy     *policy.Policy
	network    Key
	pluginType string
}

// noPlan is the plan of a pod before its first plan.
var noPlan = &plan{}

// PolicyProblem is the reason why a policy allows nothing in a pod.
type PolicyProblem struct {
	Policy  *policy.Policy
	Message string
}

// ownKey identifies a chain that belongs to no policy and depends on the pod.
type ownKey struct {
	family expr.TableFamily
	name   string
}

// ownChain is a chain that belongs to no policy and depends on the pod. While its source stays the same, the chain stays the same pointer.
type ownChain struct {
	source string
	chain  *engine.Chain
}

// setRef is a fixed set, or the set of a group for a family, which changes with the members.
type setRef struct {
	name   string
	fixed  *engine.Set // a set that never changes; nil: group and family
	group  *group
	family int // index in sets.Families
}

// makeTables returns the tables with the members that the groups have now.
func (p *plan) makeTables() (out engine.Tables) {
	list := make([]*engine.Set, 0, len(p.sets))
	var split splits
	for _, r := range p.sets {
		if r.fixed != nil {
			list = append(list, r.fixed)
			continue
		}
		// The members are updated here, in the worker of a pod.
		now := r.group.sets(r.family)
		list = append(list, now.set)
		if now.pods == nil {
			continue
		}
		list = append(list, now.pods) // the list stays sorted: no other name comes between
		if split == nil {
			split = splits{}
		}
		split[r.group.spec.Digest] |= 1 << r.family
	}
	// A split group has two sets, so the rules about the group depend on the split at this moment.
	for f, chains := range p.chains {
		out[f].Chains = p.withSplit(chains, split)
	}
	out[engine.Inet].Sets = list
	// The table of family bridge has no rules about sockets.
	if p.fullBridge {
		out[engine.Bridge].Sets = withoutServed(list)
	}
	return out
}

// withoutServed leaves out the set of kind Served, which is about sockets of the pod.
func withoutServed(list []*engine.Set) []*engine.Set {
	isServed := func(s *engine.Set) bool { return s.Name == engine.ServedSet }
	if !slices.ContainsFunc(list, isServed) {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), isServed)
}

// resubscribe notes that a pod uses the groups of the plan, and no longer those of the plan before. Chains in both plans cost
// nothing. The uses of the new plan are noted first, so that a group in both plans never loses its last user.
func (p *plan) resubscribe(t *target, before *plan) {
	if p == before {
		return
	}
	for i, pc := range p.policyChains {
		if i >= len(before.policyChains) || before.policyChains[i] != pc {
			pc.subscribe(t, 1)
		}
	}
	for i, pc := range before.policyChains {
		if i >= len(p.policyChains) || p.policyChains[i] != pc {
			pc.subscribe(t, -1)
		}
	}
}

// subscribe notes that a pod uses the groups of the chain (n = 1), or ceases to use them (n = -1).
func (pc *policyChain) subscribe(t *target, n int) {
	for _, g := range pc.groups {
		if g.targets[t] += n; g.targets[t] == 0 {
			delete(g.targets, t)
		}
	}
}

// newPlan makes a plan. It takes chains from the plan before if they stay the same. If limit is not empty, all policies
// count as exceeding this limit. It takes the lock only briefly.
func (c *Cache) newPlan(v view, before *plan, limit string) *plan {
	v.isolate()
	b := planBuilder{cache: c, view: v, before: before, chains: map[*policy.Section]*policyChain{}, users: map[portUser]int{}, plan: &plan{
		own: map[ownKey]ownChain{}, unsupported: v.unsupported(), unenforced: v.unenforceable(),
	}}
	b.choosePolicies(limit)
	// An overflow isolates unknown interfaces too, so the direction needs a table even without a known interface.
	for _, d := range engine.Directions {
		if len(v.isolated[d]) == 0 && !v.dropsUnknown(d) {
			continue
		}
		for _, f := range expr.TableFamilies {
			if b.hasTable(f) {
				b.direction(f, d)
			}
		}
	}
	return b.finish()
}

// planBuilder makes a plan. It is used for a single plan.
type planBuilder struct {
	cache       *Cache
	view        view
	before      *plan
	plan        *plan
	chains      map[*policy.Section]*policyChain // of the chosen policies
	users       map[portUser]int                 // number of chosen policies
	replies     [len(engine.Directions)]bool     // the direction needs the chains for replies
	sets, rules int                              // numbers in the table so far, for the limits
}

// choosePolicies acquires the chains of the policies that isolate an interface of the pod, in the order of their names,
// as long as the limits of the pod allow. For each interface it notes the policies whose rules apply.
func (b *planBuilder) choosePolicies(exceeded string) {
	interfaces := map[*installed]*interfaceList{} // interfaces that a policy isolates
	for _, d := range engine.Directions {
		for n, i := range b.view.isolated[d] {
			for _, p := range i.policies {
				if interfaces[p] == nil {
					interfaces[p] = &interfaceList{}
				}
				interfaces[p][d] = append(interfaces[p][d], n)
			}
		}
	}
	// A name of a chain may be in a table only once: names holds the names so far.
	limit, names := b.cache.limits.PodPolicies, map[string]bool{}
	for _, p := range b.view.selected {
		switch n := interfaces[p]; {
		// The policy selects the pod, but isolates no interface of it.
		case n == nil:
		case exceeded != "":
			b.leaveOut(p, exceeded, b.cache.limits.Get(exceeded))
		case len(b.plan.chosen) == limit:
			b.leaveOut(p, "pod-policies", limit)
		case b.choose(p, n, names):
			b.plan.chosen = append(b.plan.chosen, p)
		}
	}
	// Only now it is known which of the policies of an interface apply.
	for _, d := range engine.Directions {
		for i := range b.view.isolated[d] {
			iface := &b.view.isolated[d][i]
			for _, p := range iface.policies {
				if b.plan.applies(p) {
					iface.effective = append(iface.effective, b.chains[p.sections[d]])
				}
			}
		}
	}
}

// applies reports whether the rules of a policy apply in the pod.
func (p *plan) applies(policy *installed) bool {
	_, found := slices.BinarySearchFunc(p.chosen, policy, comparePolicies)
	return found
}

// interfaceList is interfaces, by direction, as indexes of view.isolated.
type interfaceList [len(engine.Directions)][]int

// choose acquires the chains of a policy, and reports whether the policy applies. A policy that exceeds a limit keeps
// no chain.
func (b *planBuilder) choose(p *installed, interfaces *interfaceList, names map[string]bool) bool {
	sets, rules := 0, 0
	for _, d := range engine.Directions {
		if len(interfaces[d]) > 0 {
			sets += p.sections[d].SetCount
			rules += p.sections[d].RuleCount
		}
	}
	limits := b.cache.limits
	switch {
	case b.sets+sets > limits.PodSets:
		return b.leaveOut(p, "pod-sets", limits.PodSets)
	case b.rules+b.withReplies(rules) > limits.PodRules:
		return b.leaveOut(p, "pod-rules", limits.PodRules)
	}
	// A policy whose groups had too many members is not tried again here, see cutGroup.
	if limit, isCut := b.cache.cutPolicy(p); isCut {
		return b.leaveForRoom(p, limit)
	}
	var acquired []*policyChain
	var over *cut
	collides := false
	for _, d := range engine.Directions {
		if len(interfaces[d]) == 0 {
			continue
		}
		pc := b.cache.acquireChain(p.sections[d], b.view.ports, p.Key.Namespace)
		acquired = append(acquired, pc)
		if limit, isCut := b.cache.cutGroup(pc, p); isCut {
			over = &limit
		}
		collides = collides || pc.collides || names[p.sections[d].ChainName]
		rules += b.jumps(pc, interfaces[d])
	}
	rules = b.withReplies(rules)
	isTooLong := b.rules+rules > limits.PodRules
	// Released in one step, so that no other worker sees a half.
	if over != nil || collides || isTooLong {
		b.cache.lock()
		for _, pc := range acquired {
			b.cache.releaseChain(pc, p.Key.Namespace)
		}
		b.cache.unlock()
	}
	switch {
	case over != nil:
		return b.leaveForRoom(p, *over)
	case collides:
		b.problem(p, "a hash of the policy is also the hash of another policy, so the policy allows nothing in this pod; rename it")
		return false
	case isTooLong:
		return b.leaveOut(p, "pod-rules", limits.PodRules)
	}
	for _, pc := range acquired {
		s := pc.key.section
		names[s.ChainName], b.chains[s] = true, pc
		for _, i := range interfaces[s.Direction] {
			b.users[portUser{s.Direction, i, pc.built.Guard.ID}]++
		}
	}
	b.plan.policyChains = append(b.plan.policyChains, acquired...)
	b.sets, b.rules = b.sets+sets, b.rules+rules
	return true
}

// withReplies returns the number of rules with those for replies, given the number without them.
func (b *planBuilder) withReplies(rules int) int {
	if b.cache.options.RevokeEstablished {
		return 2 * rules
	}
	return rules
}

// portUser is a list of ports that policies of an interface share, see portGroup.
type portUser struct {
	direction engine.Direction
	iface     int // index of view.isolated
	ports     string
}

// jumps returns the number of rules that a further policy adds to lead to its chain: one on each interface, and one more where
// the policy is the second policy with its list of ports.
func (b *planBuilder) jumps(pc *policyChain, interfaces []int) int {
	n := len(interfaces)
	for _, i := range interfaces {
		if ports := pc.built.Guard.ID; ports != "" && b.users[portUser{pc.key.section.Direction, i, ports}] == 1 {
			n++
		}
	}
	return n
}

// leaveForRoom notes that the groups of a policy have too many members. It returns false.
func (b *planBuilder) leaveForRoom(p *installed, limit cut) bool {
	b.plan.wantsRoom = true
	b.problem(p, fmt.Sprintf("its peer groups exceed the limit %s=%d with the other policies, so the policy isolates the pod and allows nothing there (--limit)",
		limit.limit, limit.value))
	return false
}

// leaveOut notes that a policy exceeds a limit of the pod. It returns false.
func (b *planBuilder) leaveOut(p *installed, limit string, value int) bool {
	b.problem(p, fmt.Sprintf("the table of the pod would exceed the limit %s=%d, so the policy isolates the pod and allows nothing there (--limit)", limit, value))
	return false
}

// problem notes the reason why a policy is left out.
func (b *planBuilder) problem(p *installed, message string) {
	if b.plan.limited++; b.plan.limited <= policy.MaxProblems {
		b.plan.problems = append(b.plan.problems, PolicyProblem{p.Policy, message})
	}
}

// direction adds the chains of a direction to the table of a family, except the chains of policies.
func (b *planBuilder) direction(f expr.TableFamily, d engine.Direction) {
	v := &b.view
	// source describes everything that the base chains depend on, see keep.
	source := []string{fmt.Sprint(v.bridge)}
	for _, i := range v.isolated[d] {
		source = append(source, i.iface)
		// Without support for connection tracking in bridges, the table of family bridge only drops.
		if b.hasFull(f) {
			b.keepInterface(f, d, i)
		} else {
			b.keep(f, engine.InterfaceChain(d, i.iface), fmt.Sprint(i.audited, i.logged), func() *engine.Chain { return framesChain(d, i) })
		}
	}
	// The base chains of an overflow name the open interfaces: all others are isolated.
	if v.dropsUnknown(d) {
		source = append(source, "overflow", strings.Join(v.open, "/"))
	}
	notVLANs := v.notVLANs(d)
	source = append(source, notVLANs...)
	for _, h := range d.Hooks() {
		b.keep(f, string(h), strings.Join(source, "/"), func() *engine.Chain { return v.baseChain(f, h, d, notVLANs) })
	}
	if b.hasFull(f) {
		b.share(f, &b.cache.common[f][d], b.replies[d])
	}
}

// keepInterface adds the chains of an isolated interface to a full table.
func (b *planBuilder) keepInterface(f expr.TableFamily, d engine.Direction, i isolation) {
	revoke, otherWay := b.cache.options.RevokeEstablished, b.view.isolated[d.Opposite()]
	otherWayEnforced := isEnforced(otherWay, i.iface)
	// The chain of the other direction asks these policies about replies, unless they drop nothing.
	replies := revoke && isIsolated(otherWay, i.iface) && !i.audited
	source := i.source()
	for _, g := range i.portGroups() {
		if len(g.chains) > 1 {
			b.keepPorts(f, d, i.iface, g, replies)
		}
	}
	b.keep(f, engine.InterfaceChain(d, i.iface), fmt.Sprint(source, " ", otherWayEnforced), func() *engine.Chain {
		return b.interfaceChain(f, d, i, otherWayEnforced)
	})
	if replies {
		b.replies[d] = true
		b.keep(f, engine.RepliesPrefix+engine.InterfaceChain(d, i.iface), source, func() *engine.Chain { return repliesChain(d, i) })
	}
}

// keepPorts adds the chain of a group of policies, and the chain for replies to their packets.
func (b *planBuilder) keepPorts(f expr.TableFamily, d engine.Direction, iface string, g portGroup, replies bool) {
	var source []string
	for _, pc := range g.chains {
		source = append(source, pc.key.section.Policy)
	}
	prefixes := []string{"", engine.RepliesPrefix}
	if !replies {
		prefixes = prefixes[:1]
	}
	for _, prefix := range prefixes {
		b.keep(f, prefix+engine.PortsChain(d, iface, g.ports.ID), strings.Join(source, " "), func() *engine.Chain {
			return g.chain(prefix, d, iface)
		})
	}
}

// keep adds a chain that belongs to no policy: the chain of the plan before if it has the same source, or else a new
// chain. So an unchanged chain keeps its pointer, and the engine passes over it.
func (b *planBuilder) keep(f expr.TableFamily, name, source string, build func() *engine.Chain) {
	key := ownKey{f, name}
	own, ok := b.before.own[key]
	if !ok || own.source != source {
		own = ownChain{source, build()}
	}
	b.plan.own[key] = own
	b.add(f, own.chain)
}

// add adds chains to the table of a family. They are sorted at the end.
func (b *planBuilder) add(f expr.TableFamily, chains ...*engine.Chain) {
	b.plan.chains[f] = append(b.plan.chains[f], chains...)
}

// share adds the chains and sets that all pods share.
func (b *planBuilder) share(f expr.TableFamily, common *commonPart, replies bool) {
	b.add(f, common.chains...)
	if replies {
		b.add(f, common.replies...)
	}
	for _, s := range common.sets { // the table of family bridge has no others
		b.plan.sets = append(b.plan.sets, setRef{name: s.Name, fixed: s})
	}
}

// finish adds the chains and sets of the policies, and sorts everything by name.
func (b *planBuilder) finish() *plan {
	p, v := b.plan, &b.view
	p.isolated, p.auditOnly = v.isolated, true
	for _, d := range engine.Directions {
		p.auditOnly = p.auditOnly && !v.dropsUnknown(d) && !slices.ContainsFunc(v.isolated[d], func(i isolation) bool { return !i.audited })
	}
	p.hasBridge, p.fullBridge, p.ports = b.view.bridge, b.hasFull(engine.Bridge), b.view.bridgePorts()
	for _, pc := range p.policyChains {
		p.byName = p.byName || slices.ContainsFunc(pc.key.section.Rules, func(r policy.Rule) bool { return len(r.Names) > 0 })
		for _, f := range expr.TableFamilies {
			if !b.hasFull(f) {
				continue
			}
			b.add(f, pc.built.Chain)
			if b.replies[pc.key.section.Direction] {
				b.add(f, pc.built.Replies)
			}
		}
		// Port sets belong to the chain and are equal for equal ports, so two policies may bring the same set.
		for _, s := range pc.ports {
			p.sets = append(p.sets, setRef{name: s.Name, fixed: s})
		}
		for _, g := range pc.groups {
			for i, f := range sets.Families {
				p.sets = append(p.sets, setRef{name: g.spec.SetName(f), group: g, family: i})
			}
		}
	}
	// NewRuleset sorts the chains.
	for f, chains := range p.chains {
		p.chains[f] = engine.NewRuleset(nil, chains).Chains
	}
	slices.SortFunc(p.sets, func(a, b setRef) int { return strings.Compare(a.name, b.name) })
	// Several policies may use the same group.
	p.sets = slices.CompactFunc(p.sets, func(a, b setRef) bool { return a.name == b.name })
	return p
}
