package cache

import "time"

// The members of peer groups take memory in the agent and in the kernel. A policy of a few lines can have all pods of a
// cluster as members of a hundred groups, so the members of the groups that the policies of a namespace use are limited.

// cut is the limit that keeps a namespace from using a group: name and value as in --limit.
// The zero value is no limit.
type cut struct {
	limit string
	value int
}

// own notes another chain of a namespace that uses the group.
// The caller holds the lock.
func (c *Cache) own(g *group, ns *namespace) {
	// Further chains of the same namespace cost nothing.
	if g.owners[ns]++; g.owners[ns] > 1 {
		return
	}
	if ns.groups++; ns.groups == 1 {
		c.withGroups++
	}
	ns.members += g.size
	c.cutOver(g, ns)
}

// disown reverses own.
// A group that was cut from the namespace no longer counts for it.
func (c *Cache) disown(g *group, ns *namespace) {
	if g.owners[ns]--; g.owners[ns] > 0 {
		return
	}
	delete(g.owners, ns)
	if ns.groups--; ns.groups == 0 {
		c.withGroups--
	}
	if _, isCut := g.cut[ns]; isCut {
		delete(g.cut, ns)
	} else {
		ns.members -= g.size
	}
	c.dropNamespace(ns)
}

// resize adds n to the number of shares of a group, and takes the group from namespaces that exceed their limit now.
// n may be negative. A namespace that got room again is tried by Reconsider, not here.
func (c *Cache) resize(g *group, n int) {
	g.size += n
	c.members += n
	for ns := range g.owners {
		if _, isCut := g.cut[ns]; !isCut {
			ns.members += n
		}
	}
	if n > 0 {
		for ns := range g.owners {
			c.cutOver(g, ns)
		}
	}
}

// membersOf returns the limit of the shares in the groups of a namespace: an equal share of the node's limit while all
// namespaces together exceed that limit.
func (c *Cache) membersOf() cut {
	if c.members > c.limits.NodeMembers {
		if share := c.limits.NodeMembers / max(1, c.withGroups); share < c.limits.NamespaceMembers {
			return cut{"node-members", share}
		}
	}
	return cut{"namespace-members", c.limits.NamespaceMembers}
}

// cutOver takes the use of a group from a namespace that exceeds its limit with the group: the policies of the
// namespace that use the group allow nothing when their pods have new plans. Another namespace that uses the same group
// keeps it.
// The caller holds the lock.
func (c *Cache) cutOver(g *group, ns *namespace) {
	limit := c.membersOf()
	if _, isCut := g.cut[ns]; isCut || ns.members <= limit.value {
		return
	}
	if g.cut == nil {
		g.cut = map[*namespace]cut{}
	}
	g.cut[ns] = limit
	ns.members -= g.size
	ns.forgetPlans()
	for t := range g.targets {
		if t.pod.namespace == ns {
			c.markStale(t)
		}
	}
	// No namespace may use the group any more, so its members only cost memory.
	if len(g.cut) == len(g.owners) {
		g.empty = true
		c.members -= g.size
		g.size = 0
		g.changes.Lock()
		g.changes.pods = map[*pod]change{}
		g.changes.Unlock()
	}
}

// cutGroup returns the limit that keeps the namespace of a policy from using a group of the chain. It notes the
// policy, which is then not tried again before Reconsider allows it: finding the members anew for each pod would cost a
// lot.
// The worker calls it before it uses the chain in a plan.
func (c *Cache) cutGroup(pc *policyChain, p *installed) (limit cut, isCut bool) {
	c.lock()
	defer c.unlock()
	ns := c.namespaces[p.Key.Namespace]
	for _, g := range pc.groups {
		if limit, isCut = g.cut[ns]; isCut {
			if ns.cut == nil {
				ns.cut = map[*installed]cut{}
			}
			ns.cut[p] = limit
			return limit, true
		}
	}
	return cut{}, false
}

// cutPolicy returns the limit that the groups of a policy exceeded when the policy was last tried.
// It lets a plan skip the policy without finding the members again.
func (c *Cache) cutPolicy(p *installed) (limit cut, isCut bool) {
	c.lock()
	defer c.unlock()
	limit, isCut = c.namespaces[p.Key.Namespace].cut[p]
	return limit, isCut
}

// Pauses between tries of policies whose groups had too many members, for each namespace.
const (
	firstRoomRetry = 10 * time.Second
	lastRoomRetry  = 10 * time.Minute
)

// Reconsider marks the pods dirty whose policies were left out because of a limit and may fit now. It may be called
// often: a namespace is tried again after a pause that doubles, and only if it uses less than half of its limit.
func (c *Cache) Reconsider() {
	c.lock()
	defer c.unlock()
	now := time.Now()
	walk := slice{cache: c}
	for _, ns := range c.namespaces {
		walk.step()
		if len(ns.cut) == 0 || now.Before(ns.retryAt) || ns.members >= c.membersOf().value/2 {
			continue
		}
		ns.cut = nil
		ns.forgetPlans()
		ns.retry = min(max(2*ns.retry, firstRoomRetry), lastRoomRetry)
		ns.retryAt = now.Add(ns.retry)
		for t := range ns.targets {
			if t.plan.wantsRoom {
				c.markStale(t)
			}
		}
	}
}
