package cache

import (
	"fmt"
	"sync"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// planKey identifies the inputs of a plan. Pods of a namespace with equal keys have the same plan.
type planKey struct {
	selected selection
	overflow bool
	bridge   bool
	logs     bool   // packets that are dropped are reported
	places   string // interfaces, with everything that a plan depends on
	ports    string // named ports; empty unless a policy depends on them
}

// planKey returns the key of a pod as it is now. The caller holds the lock.
func (c *Cache) planKey(t *target) planKey {
	s := t.pod.state
	places := fmt.Sprintf("%#v", c.places(t, s.attachments))
	k := planKey{selected: t.selected, overflow: s.overflow, bridge: t.hasBridge(), logs: c.logsDrops(t), places: places}
	if t.selected.byName > 0 {
		k.ports = fmt.Sprintf("%#v", s.ports)
	}
	return k
}

// sharedPlan is a plan, and the local pods of a namespace that have it: the pods of a Deployment, as a rule. An edit of a policy
// costs one plan for all of them.
type sharedPlan struct {
	key   planKey
	users int           // pods that have the plan or wait for it
	ready chan struct{} // closed once plan is set
	plan  *plan         // nil when ready: the inputs changed while the plan was made
}

// sharePlan returns the plan for a pod, and counts the pod as its user. It makes the plan unless a pod with the same key has it.
// It returns nil if the inputs changed meanwhile. The caller holds the lock, before and after; sharePlan releases it while it
// works.
func (c *Cache) sharePlan(t *target) *plan {
	ns, key := t.pod.namespace, c.planKey(t)
	if s := ns.plans[key]; s != nil {
		s.users++
		c.unlock()
		<-s.ready
		c.lock()
		return s.plan
	}
	s := &sharedPlan{key: key, users: 1, ready: make(chan struct{})}
	if ns.plans == nil {
		ns.plans = map[planKey]*sharedPlan{}
	}
	ns.plans[key] = s
	v, before := c.view(t), t.plan
	if c.planKey(t) == key {
		c.unlock()
		p := c.newPlan(v, before, "")
		c.lock()
		p.shared, s.plan = s, p
	} else if ns.plans[key] == s {
		delete(ns.plans, key)
	}
	close(s.ready)
	return s.plan
}

// releasePlan ends a pod's use of a plan. The last user releases the chains. The pod must be dirty, so that its worker retires
// groups without users. The caller holds the lock.
func (c *Cache) releasePlan(t *target, p *plan) {
	s, ns := p.shared, t.pod.namespace
	if s == nil {
		return
	}
	if s.users--; s.users > 0 {
		return
	}
	if ns.plans[s.key] == s {
		delete(ns.plans, s.key)
	}
	for _, pc := range p.policyChains {
		c.releaseChain(pc, t.pod.key.Namespace)
	}
}

// forgetPlans makes sure that pods that need a plan from now on share no earlier plan. A plan depends on the limits that groups
// exceed, which no planKey has. The caller holds the lock.
func (ns *namespace) forgetPlans() { ns.plans = nil }

// lastTables is the tables of a plan at its last use. All pods with the plan have the same slices.
type lastTables struct {
	sync.Mutex
	version uint64 // sum of the versions of all groups; they only rise
	tables  engine.Tables
	isSet   bool
}

// tables returns the tables with the members that the groups have now.
func (p *plan) tables() engine.Tables {
	p.last.Lock()
	defer p.last.Unlock()
	version := uint64(0)
	for _, r := range p.sets {
		if r.group != nil {
			version += r.group.version.Load() // before its members are read, so that a change meanwhile is not missed
		}
	}
	if !p.last.isSet || p.last.version != version {
		p.last.tables, p.last.version, p.last.isSet = p.makeTables(), version, true
	}
	return p.last.tables
}
