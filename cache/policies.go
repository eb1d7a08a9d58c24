package cache

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// installed is a policy in the cache. Only selects and sections change after it is installed.
// A policy that is edited is another installed.
type installed struct {
	*policy.Policy
	// sections are the sections of the policy, or equal sections of an earlier version, so that their chains stay the
	// same.
	sections [len(engine.Directions)]*policy.Section
	audited  bool              // the policy is in audit mode, by its annotation or by the options
	identity uint64            // random, so that sums of identities differ, see selection
	anchor   labelindex.Anchor // where the index of policies has it
	wide     int               // number of peers with a namespaceSelector, also after the rules were dropped
	isStub   bool              // the rules were dropped
	selects  int               // number of local pods that it selects
}

// newInstalled returns a policy that is not installed yet. isStub says that the rules were dropped.
func (c *Cache) newInstalled(p *policy.Policy, isStub bool) *installed {
	return &installed{
		Policy: p, sections: p.Sections, audited: p.IsAudited(c.options.Audit), identity: rand.Uint64(), wide: p.ClusterPeers, isStub: isStub,
	}
}

// comparePolicies orders policies by namespace and name.
func comparePolicies(a, b *installed) int { return policy.CompareKeys(a.Key, b.Key) }

// UpsertPolicy takes a policy as it is now, compiled with the limits of the cache.
func (c *Cache) UpsertPolicy(p *policy.Policy) {
	c.lock()
	defer c.unlock()
	c.setPolicy(c.policies[p.Key], c.newInstalled(p, false))
}

// RestorePolicy gives a policy back the rules that were dropped while its namespace exceeded a limit. It ignores a
// version other than the version in the cache: the watch brings newer versions.
func (c *Cache) RestorePolicy(p *policy.Policy) {
	c.lock()
	defer c.unlock()
	if old := c.policies[p.Key]; old == nil || !old.isStub || old.UID != p.UID || old.Version != p.Version {
		return
	}
	c.setPolicy(c.policies[p.Key], c.newInstalled(p, false))
}

// DeletePolicy removes a policy.
// Its pods keep their isolation until their workers have new plans.
func (c *Cache) DeletePolicy(key Key) {
	c.lock()
	defer c.unlock()
	delete(c.refetch, key)
	if old := c.policies[key]; old != nil {
		c.setPolicy(old, nil)
	}
}

// Policies returns the keys of the policies that the cache holds.
// The order is random.
func (c *Cache) Policies() []Key {
	c.lock()
	defer c.unlock()
	keys := make([]Key, 0, len(c.policies))
	for key := range c.policies {
		keys = append(keys, key)
	}
	return keys
}

// setPolicy replaces a version of a policy by another version, and keeps the policies within the limits. Either version
// may be nil.
// The caller holds the lock.
func (c *Cache) setPolicy(old, next *installed) {
	key := cmp.Or(old, next).Key
	before, existed := 0, false
	// The numbers before the change tell how the namespace's share of the node changes.
	if ns := c.namespaces[key.Namespace]; ns != nil {
		before, existed = ns.items, len(ns.ordered) > 0
	}
	c.replacePolicy(old, next)
	ns := c.namespaces[key.Namespace]
	if ns == nil {
		ns = &namespace{} // it is gone with its last policy
	}
	switch exists := len(ns.ordered) > 0; {
	case exists && !existed:
		c.withPolicies++
	case existed && !exists:
		c.withPolicies--
	}
	c.enforceRoom(ns, before)
}

// replacePolicy replaces a version of a policy by another version, and marks the local pods whose rules change. Either
// version may be nil.
func (c *Cache) replacePolicy(old, next *installed) {
	same := false
	if old != nil && next != nil {
		same = old.keepSections(next)
	}
	var ns *namespace
	if next != nil {
		// The new version first: it keeps the namespace in existence.
		ns = c.install(next)
	} else {
		ns = c.namespaces[old.Key.Namespace]
	}
	if old != nil {
		c.uninstall(ns, old, next != nil)
	}
	ns.policyVersion++
	for t := range ns.targets {
		was, is := old != nil && old.covers(t.pod.state), next != nil && next.covers(t.pod.state)
		if was {
			t.selected.remove(old)
			c.countActive(old, old.selects+1)
		}
		if is {
			t.selected.add(next)
			c.countActive(next, next.selects-1)
		}
		// A pod needs a new plan unless both versions select it and mean the same.
		if (was || is) && (!was || !is || !same) {
			c.markStale(t)
		}
		if was || is {
			c.recount(t)
		}
	}
	c.dropNamespace(ns)
}

// keepSections lets the next version take over the sections that are equal, and reports whether both versions have the
// same effect.
// So an edit of a label or an annotation of a policy marks no pod.
func (p *installed) keepSections(next *installed) bool {
	same := p.Pods.String() == next.Pods.String() && slices.Equal(p.Networks, next.Networks) && p.AllNetworks == next.AllNetworks &&
		p.audited == next.audited
	// Sections that are equal keep their pointer, and chains are found by the pointer of their section.
	for d, s := range p.sections {
		if s.Equal(next.sections[d]) {
			next.sections[d] = s
		} else {
			same = false
		}
	}
	return same
}

// install adds a policy to the indexes and counts.
// It replaces the earlier version in the list of the namespace.
func (c *Cache) install(p *installed) *namespace {
	c.policies[p.Key] = p
	ns := c.namespace(p.Key.Namespace)
	p.anchor = ns.policies.Add(p.Pods, p)
	i, found := slices.BinarySearchFunc(ns.ordered, p, comparePolicies)
	if found {
		// The new version of a policy takes the place of the old version.
		ns.ordered[i] = p
	} else {
		ns.ordered = slices.Insert(ns.ordered, i, p)
		c.counts.policies.Add(1)
	}
	ns.items += p.Items
	ns.clusterPeers += p.wide
	if p.isStub {
		ns.stubs++
	}
	c.count(p, 1)
	return ns
}

// uninstall removes a policy from the indexes and counts. A policy that is replaced keeps its place in ns.ordered.
func (c *Cache) uninstall(ns *namespace, p *installed, replaced bool) {
	ns.policies.Remove(p.anchor, p)
	delete(ns.cut, p)
	ns.items -= p.Items
	ns.clusterPeers -= p.wide
	if p.isStub {
		ns.stubs--
	}
	c.count(p, -1)
	if replaced {
		return
	}
	ns.retry, ns.retryAt = 0, time.Time{} // the policies left may have room
	delete(c.policies, p.Key)
	// The policy is in the list, because it was installed.
	i, _ := slices.BinarySearchFunc(ns.ordered, p, comparePolicies)
	ns.ordered = slices.Delete(ns.ordered, i, i+1)
	c.counts.policies.Add(-1)
}

// count adds a policy to the counts of policies with problems and in audit mode (n = 1), or removes it (n = -1).
func (c *Cache) count(p *installed, n int64) {
	if p.audited {
		c.counts.audited.Add(n)
	}
	if len(p.Problems) > 0 {
		c.counts.invalid.Add(n)
	}
	if p.OverLimit {
		c.counts.limited.Add(n)
	}
}

// enforceRoom drops the rules of policies that do not fit the limits, in the order of their names, and asks for the
// rules of policies that fit again. So the policies alone decide which of them have rules, not the order of events. If
// all namespaces together want too much, each namespace has the same share, so a namespace that wants little keeps its
// rules. before is the size of the namespace's policies before the event.
// was says that the node was over its limit before the event: then every share may grow again.
func (c *Cache) enforceRoom(ns *namespace, before int) {
	wanted := func(items int) int { return min(items, c.limits.NamespaceItems) }
	was := c.wanted > c.limits.NodeItems
	c.wanted += wanted(ns.items) - wanted(before)
	if c.wanted <= c.limits.NodeItems && !was {
		c.limitPolicies(ns)
		return
	}
	// The share of each namespace may have changed.
	for _, other := range c.namespaces {
		c.limitPolicies(other)
	}
}

// limitPolicies keeps the policies of a namespace within the room of the namespace.
// Policies keep their rules in the order of their names, as many as fit.
func (c *Cache) limitPolicies(ns *namespace) {
	limit, name := c.limits.NamespaceItems, "namespace-items"
	if c.wanted > c.limits.NodeItems {
		if share := c.limits.NodeItems / max(1, c.withPolicies); share < limit {
			limit, name = share, "node-items"
		}
	}
	// The usual case: everything fits, and nothing was dropped before.
	if ns.items <= limit && ns.clusterPeers <= c.limits.NamespaceClusterPeers && ns.stubs == 0 {
		return
	}
	items, clusterPeers := 0, 0
	for _, p := range slices.Clone(ns.ordered) {
		fits, problem := true, policy.Problem{}
		switch {
		case items+p.Items > limit:
			fits, problem = false, policy.RoomProblem(name, limit)
		case clusterPeers+p.wide > c.limits.NamespaceClusterPeers:
			fits, problem = false, policy.RoomProblem("namespace-cluster-peers", c.limits.NamespaceClusterPeers)
		default:
			items, clusterPeers = items+p.Items, clusterPeers+p.wide
		}
		switch {
		case fits && p.isStub:
			c.refetch[p.Key] = struct{}{}
		case !fits && !p.isStub:
			stub := c.newInstalled(p.Stub(problem), true)
			stub.wide = p.wide
			c.replacePolicy(p, stub)
		}
	}
}

// byName returns 1 for a policy that depends on the named ports of its pods, else 0.
// It is a number, so that selection can sum it up.
func (p *installed) byName() int {
	if s := p.Sections[engine.Ingress]; s != nil && s.ByName {
		return 1
	}
	return 0
}

// covers reports whether the policy selects a pod in this state and is for a network of it. A pod with more interfaces than
// the limit may be on any network.
func (p *installed) covers(s *podState) bool {
	isFor := s.overflow && (p.AllNetworks || len(p.Networks) > 0) ||
		slices.ContainsFunc(s.attachments, func(a attachment) bool { return p.IsFor(a.network.key) })
	return isFor && (s.cutLabels || p.Pods.Matches(&s.labels))
}
