package cache

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// group is a peer group in use: the peers of a rule on the networks of its policies. It exists while the chain of a
// local pod uses it. Its members are addresses or, for an endpoint group, the named ports of pods.
//
// An event only notes which pods changed; the members are updated when a worker reads the group. So an event costs
// little however many groups it touches, and the worker of the pods that use a group pays for its members.
type group struct {
	spec     *policy.Group
	id       uint64             // ascending in the order of creation
	networks *networkSet        // networks on which pods are members
	entries  []*peerEntry       // an entry for each peer of the specification
	users    int                // number of chains that use it
	owners   map[*namespace]int // namespaces of the policies of these chains, each with the number of its chains
	targets  map[*target]int    // local pods that use it, each with the number of its chains that use it
	ready    chan struct{}      // closed once all members are noted
	retired  bool               // no chain uses it any more
	cut      map[*namespace]cut // owners that exceed their limit with it, so that their policies may not use it
	empty    bool               // no owner may use it, so it has no members any more
	size     int                // shares of all its pods
	mark     uint64             // mark of the last walk that found it, see Cache.next
	version  atomic.Uint64      // raised with each change of the members

	// changes are the pods that changed since the members were last read.
	changes struct {
		sync.Mutex
		pods map[*pod]change
	}
	// content has the members. Its lock is held while they are updated, which may take long for a large group.
	content struct {
		sync.Mutex
		membership
	}
}

// change is the state of a pod when it last contributed to a group, and its state now. A pod outside of the group
// contributes nothing: noState.
// A pair of the same states is no change.
type change struct{ before, now *podState }

// compareGroups orders groups by their creation.
func compareGroups(a, b *group) int { return cmp.Compare(a.id, b.id) }

// acquireGroup returns the group of a specification for another chain of a policy of the namespace. If the group is
// new, the caller must fill it. It returns nil if another group has the same name by a collision of hashes. The caller
// holds the lock.
func (c *Cache) acquireGroup(spec *policy.Group, owner string) (g *group, isNew bool) {
	g = c.groups[spec.Name()]
	if g != nil && g.empty { // another owner may use it
		c.expel(g, owner)
		g = nil
	}
	switch {
	case g == nil:
		c.lastID++
		g = &group{
			spec: spec, id: c.lastID, networks: c.acquireNetworks(spec), owners: map[*namespace]int{}, targets: map[*target]int{},
			ready: make(chan struct{}),
		}
		g.changes.pods = map[*pod]change{}
		c.groups[spec.Name()] = g
		c.counts.groups.Add(1)
		isNew = true
	case g.spec.Digest != spec.Digest:
		return nil, false
	}
	g.users++
	c.own(g, c.namespace(owner))
	return g, isNew
}

// fill files a new group in the indexes, so that events of pods find it, and then finds the pods that exist already. It
// closes ready at the end. It holds the lock in slices.
// Other chains that use the group wait for ready.
func (c *Cache) fill(g *group) {
	blocks := g.spec.BlockAddrs()
	g.content.Lock()
	g.content.start(g.spec, blocks, c.options.split, &c.counts)
	g.content.Unlock()
	c.lock()
	walk := slice{cache: c}
	// It walks over the pods that the peers may select or over the pods on the networks, whichever are fewer.
	byNetwork := g.networks.attached()*len(g.spec.Peers) < c.costByPeer(g.spec)
	for _, p := range g.spec.Peers {
		// Filed first: a pod that comes during the walk finds the group by itself.
		e := c.enter(g, p)
		g.entries = append(g.entries, e)
		if !byNetwork && !g.empty {
			c.eachPod(e, &walk, func(p *pod) { c.join(g, p) })
		}
		walk.step()
	}
	if byNetwork && !g.empty {
		c.fillByNetwork(g, &walk)
	}
	c.unlock()
	close(g.ready)
}

// costByPeer returns an upper bound of the number of pods that a walk over the peers of a group looks at.
func (c *Cache) costByPeer(spec *policy.Group) (n int) {
	for _, p := range spec.Peers {
		if ns := c.namespaces[p.Scope.Namespace]; p.Namespaces == nil {
			if ns != nil {
				n += len(ns.pods)
			}
		} else {
			n += len(c.pods)
		}
	}
	return n
}

// fillByNetwork finds the members among the pods on the networks of the group. That is cheaper for a peer such as "all
// namespaces" on a small network.
func (c *Cache) fillByNetwork(g *group, walk *slice) {
	for _, n := range g.networks.networks {
		for p := range n.pods {
			for _, e := range g.entries {
				if e.pods.Matches(&p.state.labels) && e.scope.selects(p.namespace) {
					c.join(g, p)
					break
				}
				walk.step()
			}
			walk.step()
		}
	}
}

// join adds a pod to a group, unless it is in the group already or not on the group's networks.
// The caller holds the lock. The pod contributes its state from now on.
func (c *Cache) join(g *group, p *pod) {
	if p.gone || g.empty || !g.networks.admits(p.state.attachments) {
		return
	}
	i, in := slices.BinarySearchFunc(p.groups, g, compareGroups)
	if in {
		return
	}
	p.groups = slices.Insert(p.groups, i, g)
	c.note(g, p, noState, p.state)
}

// note notes that a pod contributes differently to a group, and marks the local pods that use the group as dirty.
// The targets that have the mark of this walk are marked already.
func (c *Cache) note(g *group, p *pod, before, now *podState) {
	if g.retired || g.empty || before == now || !c.changeShare(g, before, now) {
		return
	}
	g.changes.Lock()
	// Several changes between two reads become a single change, from the state before the first.
	if earlier, ok := g.changes.pods[p]; ok {
		before = earlier.before
	}
	g.changes.pods[p] = change{before, now}
	g.changes.Unlock()
	g.version.Add(1) // after the change is noted, see plan.tables
	for t := range g.targets {
		if t.mark != c.tick {
			t.mark = c.tick
			c.dirty[t.id()] = struct{}{}
		}
	}
}

// changeShare updates the number of shares of a group for a pod that changes. It returns false if the shares stay the
// same, or if no owner may use the group any more.
// The shares of both states are computed, since an event often changes neither addresses nor ports.
func (c *Cache) changeShare(g *group, before, now *podState) bool {
	c.scratch.before = g.networks.appendShares(c.scratch.before[:0], g.spec, before)
	c.scratch.after = g.networks.appendShares(c.scratch.after[:0], g.spec, now)
	if slices.Equal(c.scratch.before, c.scratch.after) {
		return false
	}
	c.resize(g, len(c.scratch.after)-len(c.scratch.before))
	return !g.empty
}

// regroup updates the groups that a pod is in, or comes into. before is the state that they know.
func (c *Cache) regroup(p *pod, before *podState) {
	matched := c.match(p)
	if len(matched) == 0 && len(p.groups) == 0 {
		return
	}
	c.next() // marks targets from here on
	old := p.groups
	// Both lists are sorted by ID, so a walk over both at once finds the groups that the pod leaves, joins and stays
	// in.
	for len(old) > 0 || len(matched) > 0 {
		switch {
		case len(matched) == 0 || len(old) > 0 && old[0].id < matched[0].id:
			c.note(old[0], p, before, noState)
			old = old[1:]
		case len(old) == 0 || matched[0].id < old[0].id:
			c.note(matched[0], p, noState, p.state)
			matched = matched[1:]
		default:
			c.note(old[0], p, before, p.state)
			old, matched = old[1:], matched[1:]
		}
	}
	if !slices.Equal(p.groups, c.scratch.groups) {
		p.groups = append(make([]*group, 0, len(c.scratch.groups)), c.scratch.groups...)
	}
}

// releaseGroup ends a chain's use of a group. A group without users is retired, and retire cleans up after it: that
// takes too long for the lock of an event.
// namespace is that of the policy whose chain used it.
func (c *Cache) releaseGroup(g *group, namespace string) {
	c.disown(g, c.namespaces[namespace])
	if g.users--; g.users == 0 && !g.retired {
		c.expel(g, namespace)
	}
}

// expel takes a group out of use. A worker of the namespace cleans up after it, see retire.
// It has no name from then on, so that a new group may take the name.
func (c *Cache) expel(g *group, namespace string) {
	g.retired = true
	c.members -= g.size
	delete(c.groups, g.spec.Name())
	c.counts.groups.Add(-1)
	c.retired[namespace] = append(c.retired[namespace], g)
}

// retire removes the groups that local pods of a namespace have ceased to use from the indexes and from their pods. It
// holds the lock in slices.
// It must be called without the lock.
func (c *Cache) retire(namespace string) {
	for {
		c.lock()
		list := c.retired[namespace]
		if len(list) == 0 {
			delete(c.retired, namespace)
			c.unlock()
			return
		}
		g := list[len(list)-1]
		c.retired[namespace] = list[:len(list)-1]
		c.clean(g)
		c.unlock()
		g.content.Lock()
		g.content.end()
		g.content.Unlock()
	}
}

// clean removes a retired group from its pods and from the indexes.
// The caller holds the lock; it may be released at intervals.
func (c *Cache) clean(g *group) {
	walk := slice{cache: c}
	for _, n := range g.networks.networks {
		for p := range n.pods {
			if i, in := slices.BinarySearchFunc(p.groups, g, compareGroups); in {
				p.groups = slices.Delete(p.groups, i, i+1)
			}
			walk.step()
		}
	}
	for _, e := range g.entries {
		c.leave(g, e, &walk)
		walk.step()
	}
	c.releaseNetworks(g.networks)
}

// sets returns the group's sets of a family, by the family's index, with all changes up to now.
// The worker of the pod calls it, without the lock of the cache.
func (g *group) sets(i int) groupSets {
	g.content.Lock()
	defer g.content.Unlock()
	g.content.apply(g.networks, g.takeChanges())
	return g.content.sets(i)
}

// takeChanges returns the changes since the last call and forgets them.
func (g *group) takeChanges() map[*pod]change {
	g.changes.Lock()
	defer g.changes.Unlock()
	if len(g.changes.pods) == 0 {
		return nil
	}
	changes := g.changes.pods
	g.changes.pods = map[*pod]change{}
	return changes
}

// snapshot returns all members with all changes up to now, for explanations.
func (g *group) snapshot() (sets.Addrs, sets.Endpoints) {
	g.sets(0)
	g.content.Lock()
	defer g.content.Unlock()
	return g.content.all(), g.content.endpoints
}
