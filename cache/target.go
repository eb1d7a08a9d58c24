package cache

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// Target is a local pod and the tables that its network namespace should have. It is a value: later events do not
// change it.
// The reconciler applies it.
type Target struct {
	Pod     PodID
	Sandbox Sandbox
	Tables  engine.Tables // zero: no tables
	Rules   Rules         // policies with rules in Tables; zero: Tables are in place of other tables

	HasBridge   bool     // the policies must be enforced in a bridge too
	AuditOnly   bool     // the tables drop nothing: all policies are in audit mode
	BridgePorts []string // names that isolated interfaces can have as ports of a bridge
}

// target is the state of a local pod. The lock of the cache guards its fields, except planning.
type target struct {
	pod      *pod
	selected selection // policies that select the pod
	plan     *plan     // the last plan; never nil
	closed   *plan     // plan in force in place of plan, because of a limit of memory; nil: none
	stale    bool      // the next plan may differ from plan
	bridged  bool      // an isolated interface was found as a port of a bridge

	runtimeClass  string // see Pod.RuntimeClass
	unenforceable string // why policies cannot be enforced in the pod; empty: they can

	// mark is the mark of the last walk that found it, see Cache.next.
	mark  uint64
	flags flags // counts that include the pod

	planning sync.Mutex // held while a plan is made, so that a pod has a single planner
}

// id is the identity of the pod.
func (t *target) id() PodID { return t.pod.id() }

// selection is a set of policies: their number, and the sum of their random identities. Equal sums mean equal sets. The
// policies themselves are found when a plan needs them, so a namespace with many policies costs its pods no memory.
type selection struct {
	count  int
	sum    uint64
	byName int // number of policies that depend on the named ports of the pod
}

// add adds a policy that selects the pod.
func (s *selection) add(p *installed) {
	s.count++
	s.sum += p.identity
	s.byName += p.byName()
	p.selects++
}

// remove removes a policy that selected the pod.
func (s *selection) remove(p *installed) {
	s.count--
	s.sum -= p.identity
	s.byName -= p.byName()
	p.selects--
}

// Plan updates the plan of a pod and returns its Target. The worker of the pod calls it: it may take long for a pod
// with large policies, and holds the lock only briefly. It returns false for a pod that is not local any more, and for
// a pod whose interfaces are unknown, because neither its status nor its requested networks can be read: the rules in
// force stay in force.
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
		// Events may make the plan stale again while it is made.
		for c.replan(id, t) {
		}
	}
	// The old plan may have been the last user of some groups.
	c.retire(id.Namespace)
	return c.Target(id)
}

// Target returns the tables of a pod by its last plan, with the members that its groups have now. It makes no plan.
// It is cheap, unless groups of the pod have many changes.
func (c *Cache) Target(id PodID) (Target, bool) {
	c.lock()
	t := c.targets[id]
	if t == nil || !t.pod.state.known {
		c.unlock()
		return Target{}, false
	}
	out, p := Target{Pod: id, Sandbox: c.sandboxOf(t.pod)}, t.plan
	c.unlock()
	// Without the lock: the members are updated here.
	out.Tables, out.Rules, out.HasBridge, out.BridgePorts = p.tables(), Rules{p}, p.hasBridge, p.ports
	out.AuditOnly = p.auditOnly
	return out, true
}

// Closed returns tables that isolate a pod as its policies say and allow nothing. The reconciler applies them if the
// tables of the pod exceed a limit of memory. The Shortfalls name the limit until the next call of Plan.
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

// ReportOf reads the prefix of a packet that a table of the pod reported. It returns false for a prefix that the tables in force do
// not have.
func (c *Cache) ReportOf(id PodID, prefix string) (Report, bool) {
	chain, audited := strings.CutPrefix(prefix, auditWord)
	if !audited {
		var dropped bool
		if chain, dropped = strings.CutPrefix(prefix, dropWord); !dropped {
			return Report{}, false
		}
	}
	c.lock()
	t := c.targets[id]
	var p *plan
	if t != nil {
		p = cmp.Or(t.closed, t.plan)
	}
	c.unlock()
	if p == nil {
		return Report{}, false
	}
	for _, d := range engine.Directions {
		for _, i := range p.isolated[d] {
			if engine.InterfaceChain(d, i.iface) != chain {
				continue
			}
			r := Report{Interface: i.iface, Direction: d, Audited: audited}
			r.More = max(0, len(i.policies)-MaxReported)
			for _, p := range i.policies[:len(i.policies)-r.More] {
				r.Policies = append(r.Policies, p.Key)
			}
			return r, true
		}
	}
	return Report{}, false
}

// IsSelected reports whether a local pod is known, and whether any policy selects it. It makes no plan.
// A pod with unreadable interfaces counts as unknown.
func (c *Cache) IsSelected(id PodID) (selected, known bool) {
	c.lock()
	defer c.unlock()
	t := c.targets[id]
	if t == nil || !t.pod.state.known {
		return false, false
	}
	return t.selected.count > 0, true
}

// LocalPod returns the local pod with the name: the pod of the API server or, if the API server has none, of the
// container runtime.
// A runtime may announce a pod before the API server's event.
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

// replan gives the pod a new plan if it needs one, and reports whether the pod may need another.
func (c *Cache) replan(id PodID, t *target) bool {
	c.lock()
	if c.targets[id] != t || !t.stale {
		c.unlock()
		return false
	}
	// Before the plan is made: an event during the work makes it stale again.
	t.stale = false
	next := c.sharePlan(t)
	defer c.unlock()
	switch {
	case c.targets[id] != t: // the pod went away meanwhile
		if next != nil {
			c.releasePlan(t, next)
		}
		return false
	case next == nil:
		t.stale = true
		return true
	}
	before := t.plan
	t.plan = next
	c.recount(t)
	next.resubscribe(t, before)
	c.releasePlan(t, before)
	return true
}

// setLocal makes a pod a target, or ends that.
// The caller holds the lock. Either way the pod is dirty.
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
	noPlan.resubscribe(t, t.plan)
	c.releasePlan(t, t.plan)
	c.reselect(t, p.state, noState)
	c.setFlags(t, flags{})
	delete(c.targets, p.id())
	delete(c.byUID, p.local.uid)
	delete(p.namespace.targets, t)
	c.counts.localPods.Add(-1)
	p.target = nil
}

// retarget updates a target after a change of its pod. before is the state before the change. It marks the target only
// if the change matters to its plan.
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

// reselect removes the policies that select a state of the pod from the selection, and adds the policies that select
// another state.
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

// countActive updates the count of active policies for a policy that selected before so many local pods.
// Each policy counts once, however many pods it selects.
func (c *Cache) countActive(p *installed, before int) {
	switch {
	case before == 0 && p.selects > 0:
		c.counts.active.Add(1)
	case before > 0 && p.selects == 0:
		c.counts.active.Add(-1)
	}
}

// markStale notes that the pod needs a new plan.
// The caller holds the lock.
func (c *Cache) markStale(t *target) {
	t.stale = true
	c.dirty[t.id()] = struct{}{}
}
