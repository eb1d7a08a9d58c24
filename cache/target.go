package cache

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Target is a local pod and the tables that its network namespace must hold.
type Target struct {
	Pod     PodID
	Sandbox Sandbox
	Tables  engine.Tables // zero: no table

	HasBridge   bool     // the policies must be enforced in a bridge, too
	BridgePorts []string // the names that isolated interfaces have as ports of a bridge
}

// target is a local pod. Its fields belong to the lock of the cache, except for planning.
type target struct {
	pod      *pod
	selected selection // policies that select the pod
	plan     *plan     // never nil
	closed   *plan     // in force in its place; nil: none
	stale    bool      // the next plan may be another one
	bridged  bool      // an isolated interface was found to be a port of a bridge

	runtimeClass  string // as Pod.RuntimeClass
	unenforceable string // why policies cannot be enforced in the pod; empty: they can

	mark  uint64
	flags flags

	planning sync.Mutex // held while a plan is made
}

func (t *target) id() PodID { return t.pod.id() }

// selection is a set of policies: their number, and a sum of their identities. Two sets with the same sum are the same.
// The policies themselves are found when a plan needs them, so a namespace with many policies costs its pods no memory.
type selection struct {
	count  int
	sum    uint64
	byName int // policies that depend on the named ports of the pod
}

func (s *selection) add(p *installed) {
	s.count++
	s.sum += p.identity
	s.byName += p.byName()
	p.selects++
}

func (s *selection) remove(p *installed) {
	s.count--
	s.sum -= p.identity
	s.byName -= p.byName()
	p.selects--
}

// plan is what a pod's tables are made of, apart from the members of groups. It never changes.
type plan struct {
	policyChains []*policyChain
	own          map[ownKey]ownChain                      // the pod's own chains
	chains       [len(expr.TableFamilies)][]*engine.Chain // by the family of the table; all, sorted by name
	sets         []setRef                                 // sorted by name
	fullBridge   bool                                     // the table of family bridge has the sets, too
	hasBridge    bool
	ports        []string        // see Target.BridgePorts
	chosen       []*installed    // policies whose rules apply, sorted
	problems     []PolicyProblem // of other policies; only the first of them
	limited      int             // number of these policies
	wantsRoom    bool            // a policy was left out as its groups have too many members
	unsupported  []unsupported   // uses of networks that are not isolated; only the first of them
	unenforced   []unenforceable // isolated interfaces whose packets the kernel hides from rules; only the first of them
}

// unsupported is a network of the pod that a policy is for, and that policies do not isolate.
type unsupported struct {
	policy     *policy.Policy
	network    Key
	pluginType string
}

var noPlan = &plan{}

// PolicyProblem says why a policy allows nothing in one pod.
type PolicyProblem struct {
	Policy  *policy.Policy
	Message string
}

// ownKey identifies a chain of a pod's own.
type ownKey struct {
	family expr.TableFamily
	name   string
}

// ownChain is a chain of one pod. While its source is the same, the chain stays the same pointer.
type ownChain struct {
	source string
	chain  *engine.Chain
}

// setRef is a set that stays as it is, or the set of one family of a group.
type setRef struct {
	name   string
	fixed  *engine.Set
	group  *group
	family int // index
}

// isolation is an isolated interface and the policies that isolate it.
type isolation struct {
	iface     string
	policies  []*installed // sorted
	effective []*installed // those whose rules apply: the others exceed a limit

	hidden hiding // packets of the interface
}

// Plan brings the plan of a pod up to date and returns its Target. The worker of the pod calls it: it may take long for a
// pod with large policies, and holds the lock only briefly. It is false for a pod that is not local (any more), and for
// a pod whose interfaces are unknown, since neither its status nor its requested networks can be read: what is in force
// stays in force.
func (c *Cache) Plan(id PodID) (Target, bool) {
	c.lock()
	t := c.targets[id]
	if t != nil && t.closed != nil {
		t.closed = nil
		c.recount(t)
	}
	c.unlock()
	if t != nil {
		t.planning.Lock()
		defer t.planning.Unlock()
		for c.replan(id, t) {
		}
	}
	c.retire(id.Namespace)
	return c.Target(id)
}

// Target returns the table of a pod by its last plan, with the members that its groups have now. It has no side effects.
func (c *Cache) Target(id PodID) (Target, bool) {
	c.lock()
	t := c.targets[id]
	if t == nil || !t.pod.state.known {
		c.unlock()
		return Target{}, false
	}
	out, p := Target{Pod: id, Sandbox: c.sandboxOf(t.pod)}, t.plan
	c.unlock()
	out.Tables, out.HasBridge, out.BridgePorts = p.tables(), p.hasBridge, p.ports
	return out, true
}

// Closed returns tables that isolate a pod as its policies say and allow nothing, for a pod whose tables exceed a limit that
// is not the cache's. The Shortfalls name the limit until the next call of Plan.
func (c *Cache) Closed(id PodID, limit string) engine.Tables {
	c.lock()
	t := c.targets[id]
	if t == nil {
		c.unlock()
		return engine.Tables{}
	}
	v := c.view(t)
	c.unlock()
	closed := c.newPlan(v, noPlan, limit)
	c.lock()
	defer c.unlock()
	t.closed = closed
	c.recount(t)
	return closed.tables()
}

// IsSelected reports whether a local pod is known and whether any policy may isolate it.
func (c *Cache) IsSelected(id PodID) (selected, known bool) {
	c.lock()
	defer c.unlock()
	t := c.targets[id]
	if t == nil || !t.pod.state.known {
		return false, false
	}
	return t.selected.count > 0, true
}

// LocalPod returns the pod of this name that the API server or, if it knows none, the container runtime knows.
func (c *Cache) LocalPod(key Key) (PodID, bool) {
	c.lock()
	defer c.unlock()
	if p := c.pods[key]; p != nil && p.target != nil {
		return p.id(), true
	}
	for id := range c.targets {
		if id.Key == key {
			return id, true
		}
	}
	return PodID{}, false
}

// replan makes one plan if the pod needs one, and reports whether it did.
func (c *Cache) replan(id PodID, t *target) bool {
	c.lock()
	if c.targets[id] != t || !t.stale {
		c.unlock()
		return false
	}
	t.stale = false
	v, before := c.view(t), t.plan
	c.unlock()
	next := c.newPlan(v, before, "")
	c.lock()
	defer c.unlock()
	if c.targets[id] != t { // the pod went away meanwhile
		c.releasePlan(t, next)
		return false
	}
	t.plan = next
	c.recount(t)
	next.subscribe(t, 1)
	before.subscribe(t, -1)
	c.releasePlan(t, before)
	return true
}

// tables returns the tables with the members of now.
func (p *plan) tables() (out engine.Tables) {
	list := make([]*engine.Set, 0, len(p.sets))
	var split splits
	for _, r := range p.sets {
		if r.fixed != nil {
			list = append(list, r.fixed)
			continue
		}
		now := r.group.sets(r.family)
		list = append(list, now.set)
		if now.pods == nil {
			continue
		}
		list = append(list, now.pods) // its name is the next one in order
		if split == nil {
			split = splits{}
		}
		split[r.group.spec.Digest] |= 1 << r.family
	}
	for f, chains := range p.chains {
		out[f].Chains = p.withSplit(chains, split)
	}
	out[engine.Inet].Sets = list
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

// subscribe adds the plan's uses of groups to those of the pod, or removes them.
func (p *plan) subscribe(t *target, n int) {
	for _, pc := range p.policyChains {
		for _, g := range pc.groups {
			if g.targets[t] += n; g.targets[t] == 0 {
				delete(g.targets, t)
			}
		}
	}
}

// releasePlan lets go of the chains of a plan. The pod is dirty, so that its worker retires their groups.
func (c *Cache) releasePlan(t *target, p *plan) {
	for _, pc := range p.policyChains {
		c.releaseChain(pc, t.pod.key.Namespace)
	}
}

// setLocal makes a pod a target, or takes that back.
func (c *Cache) setLocal(p *pod, local bool) {
	if local == (p.target != nil) {
		return
	}
	c.dirty[p.id()] = struct{}{}
	if local {
		t := &target{pod: p, plan: noPlan, stale: true}
		p.target = t
		c.targets[p.id()] = t
		c.byUID[p.local.uid] = t
		p.namespace.targets[t] = struct{}{}
		c.counts.localPods.Add(1)
		c.retarget(t, noState)
		return
	}
	t := p.target
	t.plan.subscribe(t, -1)
	c.releasePlan(t, t.plan)
	c.reselect(t, p.state, noState)
	c.setFlags(t, flags{})
	delete(c.targets, p.id())
	delete(c.byUID, p.local.uid)
	delete(p.namespace.targets, t)
	c.counts.localPods.Add(-1)
	p.target = nil
}

// retarget brings a target up to date with its pod, whose state was before.
func (c *Cache) retarget(t *target, before *podState) {
	now, selected := t.pod.state, t.selected
	c.reselect(t, before, now)
	switch {
	case now.known != before.known, now.overflow != before.overflow, selected != t.selected,
		now.hasVirtualMachine() != before.hasVirtualMachine(),
		t.selected.count > 0 && !slices.EqualFunc(before.attachments, now.attachments, attachment.samePlace),
		t.selected.byName > 0 && !slices.Equal(before.ports, now.ports):
		c.markStale(t)
	}
	c.recount(t)
}

// reselect takes the policies of one state of the pod out of the selection, and adds those of another state.
func (c *Cache) reselect(t *target, before, now *podState) {
	for _, p := range t.pod.namespace.candidates(before) {
		if p.covers(before) {
			t.selected.remove(p)
			c.countActive(p, p.selects+1)
		}
	}
	for _, p := range t.pod.namespace.candidates(now) {
		if p.covers(now) {
			t.selected.add(p)
			c.countActive(p, p.selects-1)
		}
	}
}

// countActive brings the count of policies that select a local pod up to date with a policy that selected so many before.
func (c *Cache) countActive(p *installed, before int) {
	switch {
	case before == 0 && p.selects > 0:
		c.counts.active.Add(1)
	case before > 0 && p.selects == 0:
		c.counts.active.Add(-1)
	}
}

func (c *Cache) markStale(t *target) {
	t.stale = true
	c.dirty[t.id()] = struct{}{}
}

// view is what a plan is made from, taken under the lock.
type view struct {
	selected    []*installed // policies that select the pod, sorted
	attachments []place      // sorted by interface
	overflow    bool
	ports       []policy.NamedPort
	bridge      bool // policies must be enforced in a bridge, which the pod has or will have

	isolated [len(engine.Directions)][]isolation
	open     []string // interfaces that are not isolated in either direction, lo included
}

// place is one interface of a pod on one network, at the time of a view.
type place struct {
	iface      string
	network    Key
	pluginType string
	isolated   bool // by policies for the network

	hidden hiding // packets of the interface
	caveat string // why it is unknown whether packets are hidden; empty: it is known
}

// view takes the view of a pod. It lets go of the lock now and then, and starts again if something changed meanwhile.
func (c *Cache) view(t *target) view {
	ns := t.pod.namespace
	for try := 0; ; try++ {
		walk := slice{cache: c, keep: try == lastTry}
		version, state := ns.policyVersion, t.pod.state
		v := view{overflow: state.overflow, ports: state.ports, bridge: t.hasBridge()}
		for i := 0; i < len(ns.ordered); i++ {
			if p := ns.ordered[i]; p.covers(state) {
				v.selected = append(v.selected, p)
			}
			walk.step()
		}
		for _, a := range state.attachments {
			v.attachments = append(v.attachments, place{
				a.iface, a.network.key, a.network.PluginType, c.isolates(a.network, t.pod),
				hiding{why: t.unenforceable}.orWorse(a.network.hides(t.pod)).orWorse(state.inBond(t.pod, a.iface)),
				a.network.caveat(t.pod),
			})
			walk.step()
		}
		if version == ns.policyVersion && state == t.pod.state {
			return v
		}
	}
}

// lastTry is the number of the try that keeps the lock, so that it is the last one.
const lastTry = 5

// isolate finds the interfaces that are isolated and those that are not. It takes no lock.
func (v *view) isolate() {
	isolated := map[string]bool{}
	for _, d := range engine.Directions {
		v.isolated[d] = v.isolations(d)
		for _, i := range v.isolated[d] {
			isolated[i.iface] = true
		}
	}
	v.open = []string{"lo"}
	for _, a := range v.attachments {
		if !isolated[a.iface] && !slices.Contains(v.open, a.iface) {
			v.open = append(v.open, a.iface)
		}
	}
}

// notVLANs returns the open interfaces of a direction whose names look like those of VLAN devices on isolated interfaces.
func (v *view) notVLANs(d engine.Direction) (names []string) {
	for _, a := range v.attachments {
		isLikeVLAN := func(i isolation) bool { return strings.HasPrefix(a.iface, i.iface+".") }
		if slices.ContainsFunc(v.isolated[d], isLikeVLAN) && !isIsolated(v.isolated[d], a.iface) && !slices.Contains(names, a.iface) {
			names = append(names, a.iface)
		}
	}
	return names
}

// isolations returns the interfaces that are isolated in a direction, sorted.
func (v *view) isolations(d engine.Direction) []isolation {
	var out []isolation
	for _, a := range v.attachments {
		if !a.isolated {
			continue
		}
		var policies []*installed
		for _, p := range v.selected {
			if p.sections[d] != nil && p.IsFor(a.network) {
				policies = append(policies, p)
			}
		}
		switch n := len(out); {
		case len(policies) == 0:
		case n > 0 && out[n-1].iface == a.iface: // one interface on several networks
			all := append(out[n-1].policies, policies...)
			slices.SortFunc(all, comparePolicies)
			out[n-1].policies = slices.Compact(all)
			out[n-1].hidden = out[n-1].hidden.orWorse(a.hidden)
		default:
			out = append(out, isolation{iface: a.iface, policies: policies, hidden: a.hidden})
		}
	}
	return out
}

// unsupported returns the networks of the pod that policies are for and do not isolate.
func (v *view) unsupported() []unsupported {
	var out []unsupported
	for _, a := range v.attachments {
		if a.isolated {
			continue
		}
		for _, p := range v.selected {
			if p.IsFor(a.network) && len(out) < policy.MaxProblems {
				out = append(out, unsupported{p.Policy, a.network, a.pluginType})
			}
		}
	}
	return out
}

func isIsolated(list []isolation, iface string) bool {
	return slices.ContainsFunc(list, func(i isolation) bool { return i.iface == iface })
}

// newPlan makes a plan, with the chains that stay the same from the plan before. With a limit, all policies exceed it.
func (c *Cache) newPlan(v view, before *plan, limit string) *plan {
	v.isolate()
	b := planBuilder{cache: c, view: v, before: before, plan: &plan{
		own: map[ownKey]ownChain{}, unsupported: v.unsupported(), unenforced: v.unenforceable(),
	}}
	b.choosePolicies(limit)
	for _, d := range engine.Directions {
		if len(v.isolated[d]) == 0 && (!v.overflow || !b.isolatesAny(d)) {
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

// isolatesAny reports whether a policy that selects the pod isolates the direction.
func (b *planBuilder) isolatesAny(d engine.Direction) bool {
	return slices.ContainsFunc(b.view.selected, func(p *installed) bool { return p.sections[d] != nil })
}

// source is what the chain of an interface is made of.
func (i isolation) source() string {
	names := []string{i.iface}
	for _, p := range i.effective {
		names = append(names, p.Key.String())
	}
	return strings.Join(names, " ")
}

// planBuilder makes one plan.
type planBuilder struct {
	cache       *Cache
	view        view
	before      *plan
	plan        *plan
	replies     [len(engine.Directions)]bool // a direction needs the chains for replies
	sets, rules int                          // in the table, as far as it is planned
}

// choosePolicies acquires the chains of the policies that isolate an interface of the pod, in the order of their names,
// as long as the pod's limits allow, and notes for each interface the policies whose rules apply.
func (b *planBuilder) choosePolicies(exceeded string) {
	interfaces := map[*installed]*[len(engine.Directions)]int{} // that the policy isolates
	for _, d := range engine.Directions {
		for _, i := range b.view.isolated[d] {
			for _, p := range i.policies {
				if interfaces[p] == nil {
					interfaces[p] = &[len(engine.Directions)]int{}
				}
				interfaces[p][d]++
			}
		}
	}
	limit, names := b.cache.limits.PodPolicies, map[string]bool{}
	for _, p := range b.view.selected {
		switch n := interfaces[p]; {
		case n == nil:
		case exceeded != "":
			b.leaveOut(p, exceeded, b.cache.limits.Get(exceeded))
		case len(b.plan.chosen) == limit:
			b.leaveOut(p, "pod-policies", limit)
		case b.choose(p, *n, names):
			b.plan.chosen = append(b.plan.chosen, p)
		}
	}
	for _, d := range engine.Directions {
		for i := range b.view.isolated[d] {
			iface := &b.view.isolated[d][i]
			for _, p := range iface.policies {
				if b.plan.applies(p) {
					iface.effective = append(iface.effective, p)
				}
			}
		}
	}
}

// applies reports whether the rules of a policy apply.
func (p *plan) applies(policy *installed) bool {
	_, found := slices.BinarySearchFunc(p.chosen, policy, comparePolicies)
	return found
}

// choose acquires the chains of one policy, unless they exceed a limit.
func (b *planBuilder) choose(p *installed, interfaces [len(engine.Directions)]int, names map[string]bool) bool {
	sets, rules := 0, 0
	for _, d := range engine.Directions {
		if interfaces[d] > 0 {
			sets += p.sections[d].SetCount
			rules += interfaces[d] + p.sections[d].RuleCount
		}
	}
	if b.cache.options.RevokeEstablished {
		rules *= 2
	}
	limits := b.cache.limits
	switch {
	case b.sets+sets > limits.PodSets:
		return b.leaveOut(p, "pod-sets", limits.PodSets)
	case b.rules+rules > limits.PodRules:
		return b.leaveOut(p, "pod-rules", limits.PodRules)
	}
	if limit, isCut := b.cache.cutPolicy(p); isCut {
		return b.leaveForRoom(p, limit)
	}
	var acquired []*policyChain
	var over *cut
	problem := ""
	for _, d := range engine.Directions {
		if interfaces[d] == 0 {
			continue
		}
		pc := b.cache.acquireChain(p.sections[d], b.view.ports, p.Key.Namespace)
		acquired = append(acquired, pc)
		if limit, isCut := b.cache.cutGroup(pc, p); isCut {
			over = &limit
		} else if pc.collides || names[p.sections[d].ChainName] {
			problem = "a hash of the policy is also the hash of another policy, so the policy allows nothing in this pod; rename it"
		}
	}
	if over != nil || problem != "" {
		b.cache.lock()
		for _, pc := range acquired {
			b.cache.releaseChain(pc, p.Key.Namespace)
		}
		b.cache.unlock()
	}
	switch {
	case over != nil:
		return b.leaveForRoom(p, *over)
	case problem != "":
		b.problem(p, problem)
		return false
	}
	for _, pc := range acquired {
		names[pc.key.section.ChainName] = true
	}
	b.plan.policyChains = append(b.plan.policyChains, acquired...)
	b.sets, b.rules = b.sets+sets, b.rules+rules
	return true
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

func (b *planBuilder) problem(p *installed, message string) {
	if b.plan.limited++; b.plan.limited <= policy.MaxProblems {
		b.plan.problems = append(b.plan.problems, PolicyProblem{p.Policy, message})
	}
}

// direction adds the chains of one direction to the table of a family, apart from those of the policies.
func (b *planBuilder) direction(f expr.TableFamily, d engine.Direction) {
	v := &b.view
	source := []string{fmt.Sprint(v.bridge)}
	for _, i := range v.isolated[d] {
		source = append(source, i.iface)
		if b.hasFull(f) {
			b.keepInterface(f, d, i, isIsolated(v.isolated[d.Opposite()], i.iface))
		} else {
			b.keep(f, engine.InterfaceChain(d, i.iface), "", func() *engine.Chain { return framesChain(d, i.iface) })
		}
	}
	if v.overflow {
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

// keepInterface adds the chains of an isolated interface.
func (b *planBuilder) keepInterface(f expr.TableFamily, d engine.Direction, i isolation, otherWayIsolated bool) {
	revoke := b.cache.options.RevokeEstablished
	source := i.source()
	b.keep(f, engine.InterfaceChain(d, i.iface), fmt.Sprint(source, " ", otherWayIsolated), func() *engine.Chain {
		return interfaceChain(f, d, i, revoke, otherWayIsolated)
	})
	if revoke && otherWayIsolated {
		b.replies[d] = true
		b.keep(f, engine.RepliesPrefix+engine.InterfaceChain(d, i.iface), source, func() *engine.Chain { return repliesChain(d, i) })
	}
}

// keep adds a chain of the pod's own: the chain of the plan before, if it has the same source.
func (b *planBuilder) keep(f expr.TableFamily, name, source string, build func() *engine.Chain) {
	key := ownKey{f, name}
	own, ok := b.before.own[key]
	if !ok || own.source != source {
		own = ownChain{source, build()}
	}
	b.plan.own[key] = own
	b.add(f, own.chain)
}

// add adds chains to the table of a family.
func (b *planBuilder) add(f expr.TableFamily, chains ...*engine.Chain) {
	b.plan.chains[f] = append(b.plan.chains[f], chains...)
}

// share adds the chains and sets that all pods have.
func (b *planBuilder) share(f expr.TableFamily, common *commonPart, replies bool) {
	b.add(f, common.chains...)
	if replies {
		b.add(f, common.replies...)
	}
	for _, s := range common.sets { // the table of family bridge has no others
		b.plan.sets = append(b.plan.sets, setRef{name: s.Name, fixed: s})
	}
}

// finish adds the chains and sets of the policies, and sorts.
func (b *planBuilder) finish() *plan {
	p := b.plan
	p.hasBridge, p.fullBridge, p.ports = b.view.bridge, b.hasFull(engine.Bridge), b.view.bridgePorts()
	for _, pc := range p.policyChains {
		for _, f := range expr.TableFamilies {
			if !b.hasFull(f) {
				continue
			}
			b.add(f, pc.built.Chain)
			if b.replies[pc.key.section.Direction] {
				b.add(f, pc.built.Replies)
			}
		}
		for _, s := range pc.ports {
			p.sets = append(p.sets, setRef{name: s.Name, fixed: s})
		}
		for _, g := range pc.groups {
			for i, f := range sets.Families {
				p.sets = append(p.sets, setRef{name: g.spec.SetName(f), group: g, family: i})
			}
		}
	}
	for f, chains := range p.chains {
		p.chains[f] = engine.NewRuleset(nil, chains).Chains
	}
	slices.SortFunc(p.sets, func(a, b setRef) int { return strings.Compare(a.name, b.name) })
	p.sets = slices.CompactFunc(p.sets, func(a, b setRef) bool { return a.name == b.name })
	return p
}
