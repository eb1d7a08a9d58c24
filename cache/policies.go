package cache

import (
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// installed is a policy in the cache.
type installed struct {
	*policy.Policy
	// sections are those of the policy, or equal ones of an earlier version: the chains made of them stay as they are.
	sections [len(engine.Directions)]*policy.Section
	anchor   labelindex.Anchor
	isStub   bool // the rules were dropped
	selects  int  // number of local pods
}

func comparePolicies(a, b *installed) int { return policy.CompareKeys(a.Key, b.Key) }

// UpsertPolicy takes a policy as it is now, compiled with the limits of the cache.
func (c *Cache) UpsertPolicy(p *policy.Policy) {
	c.lock()
	defer c.unlock()
	c.replacePolicy(c.policies[p.Key], &installed{Policy: p, sections: p.Sections})
	c.enforceRoom(p.Key.Namespace)
}

// RestorePolicy gives a policy its rules back that were dropped while its namespace exceeded a limit. Another version than
// the version in the cache is ignored.
func (c *Cache) RestorePolicy(p *policy.Policy) {
	c.lock()
	defer c.unlock()
	if old := c.policies[p.Key]; old == nil || !old.isStub || old.UID != p.UID || old.Version != p.Version {
		return
	}
	c.replacePolicy(c.policies[p.Key], &installed{Policy: p, sections: p.Sections})
	c.enforceRoom(p.Key.Namespace)
}

// DeletePolicy removes a policy.
func (c *Cache) DeletePolicy(key Key) {
	c.lock()
	defer c.unlock()
	delete(c.refetch, key)
	if old := c.policies[key]; old != nil {
		c.replacePolicy(old, nil)
		c.enforceRoom(key.Namespace)
	}
}

// Policies returns the keys of the policies that the cache holds.
func (c *Cache) Policies() []Key {
	c.lock()
	defer c.unlock()
	keys := make([]Key, 0, len(c.policies))
	for key := range c.policies {
		keys = append(keys, key)
	}
	return keys
}

// replacePolicy puts one version in the place of another, either of them nil for none, and marks the local pods for which
// that makes a difference.
func (c *Cache) replacePolicy(old, next *installed) {
	same := false
	if old != nil && next != nil {
		same = old.keepSections(next)
	}
	var ns *namespace
	if next != nil {
		ns = c.install(next)
	} else {
		ns = c.namespaces[old.Key.Namespace]
	}
	if old != nil {
		c.uninstall(ns, old, next != nil)
	}
	for t := range ns.targets {
		was := old != nil && t.deselect(old)
		is := next != nil && t.selectIf(next)
		if (was || is) && (!was || !is || !same) {
			c.markStale(t)
		}
		if was || is {
			c.recount(t)
		}
	}
	if old != nil && old.selects > 0 {
		c.counts.active.Add(-1)
	}
	if next != nil && next.selects > 0 {
		c.counts.active.Add(1)
	}
	c.dropNamespace(ns)
}

// keepSections lets the next version take over equal sections, and reports whether the two versions mean the same.
func (p *installed) keepSections(next *installed) bool {
	same := p.Pods.String() == next.Pods.String() && slices.Equal(p.Networks, next.Networks)
	for d, s := range p.sections {
		if s.Equal(next.sections[d]) {
			next.sections[d] = s
		} else {
			same = false
		}
	}
	return same
}

func (c *Cache) install(p *installed) *namespace {
	c.policies[p.Key] = p
	ns := c.namespace(p.Key.Namespace)
	p.anchor = ns.policies.Add(p.Pods, p)
	i, found := slices.BinarySearchFunc(ns.ordered, p, comparePolicies)
	if found {
		ns.ordered[i] = p
	} else {
		ns.ordered = slices.Insert(ns.ordered, i, p)
		c.counts.policies.Add(1)
	}
	ns.items += p.Items
	if p.isStub {
		ns.stubs++
	}
	c.count(p, 1)
	return ns
}

func (c *Cache) uninstall(ns *namespace, p *installed, replaced bool) {
	ns.policies.Remove(p.anchor, p)
	ns.items -= p.Items
	if p.isStub {
		ns.stubs--
	}
	c.count(p, -1)
	if replaced {
		return
	}
	delete(c.policies, p.Key)
	i, _ := slices.BinarySearchFunc(ns.ordered, p, comparePolicies)
	ns.ordered = slices.Delete(ns.ordered, i, i+1)
	c.counts.policies.Add(-1)
}

// count adds a policy to the counts of policies with problems, or takes it away.
func (c *Cache) count(p *installed, n int64) {
	if len(p.Problems) > 0 {
		c.counts.invalid.Add(n)
	}
	if p.OverLimit {
		c.counts.limited.Add(n)
	}
}

// enforceRoom drops the rules of policies that the namespace has no room for, in the order of their names, and asks for
// the rules of those for which there is room again. So which policies have rules follows from the policies alone.
func (c *Cache) enforceRoom(namespace string) {
	ns := c.namespaces[namespace]
	if ns == nil || ns.items <= c.limits.NamespaceItems && ns.stubs == 0 {
		return
	}
	used := 0
	for _, p := range slices.Clone(ns.ordered) {
		fits := used+p.Items <= c.limits.NamespaceItems
		if fits {
			used += p.Items
		}
		switch {
		case fits && p.isStub:
			c.refetch[p.Key] = struct{}{}
		case !fits && !p.isStub:
			stub := p.Stub(policy.NamespaceProblem(c.limits))
			c.replacePolicy(p, &installed{Policy: stub, sections: stub.Sections, isStub: true})
		}
	}
}

// covers reports whether the policy selects the pod and is for a network of it. A pod with more interfaces than the limit
// may be on any network.
func (p *installed) covers(pod *pod) bool {
	s := pod.state
	isFor := s.overflow && len(p.Networks) > 0 ||
		slices.ContainsFunc(s.attachments, func(a attachment) bool { return p.IsFor(a.network.key) })
	return isFor && p.Pods.Matches(&s.labels)
}
