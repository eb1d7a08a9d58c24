package cache

import (
	"cmp"
	"slices"
	"sync"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// group is a peer group in use: all peers of one list on a set of networks. It exists while the chain of a local pod
// uses it. Its members are addresses or, for an endpoint group, the named ports of pods.
//
// An event only notes which pods changed; the members follow when somebody reads the group. So an event costs little
// however many groups it touches, and the worker of the pods that use a group pays for its members.
type group struct {
	spec     *policy.Group
	id       uint64 // ascending in the order of creation
	networks *networkSet
	entries  []*peerEntry
	users    int                // chains
	owners   map[*namespace]int // of the policies of these chains, each with their number
	targets  map[*target]int    // that use it, each with the number of its chains that do
	ready    chan struct{}      // closed once all members are noted
	retired  bool               // no chain uses it any more
	cut      map[*namespace]cut // owners that may not use it
	empty    bool               // no owner may use it, so it has no members any more
	size     int                // shares of all pods
	mark     uint64

	changes struct {
		sync.Mutex
		pods map[*pod]change
	}
	content struct {
		sync.Mutex
		membership
	}
}

// change is the state of a pod when it last contributed to a group, and its state now. A pod outside of the group
// contributes nothing: noState.
type change struct{ before, now *podState }

func compareGroups(a, b *group) int { return cmp.Compare(a.id, b.id) }

// acquireGroup returns the group of a specification for one more chain of a policy of the namespace. It reports whether the
// group is new: the caller must fill it. It returns nil if another group has the same name by a collision of hashes.
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

// fill files a new group in the indexes and finds its members.
func (c *Cache) fill(g *group) {
	blocks := g.spec.BlockAddrs()
	g.content.Lock()
	g.content.start(g.spec, blocks, c.options.split, &c.counts)
	g.content.Unlock()
	c.lock()
	walk := slice{cache: c}
	byNetwork := g.networks.attached()*len(g.spec.Peers) < c.costByPeer(g.spec)
	for _, p := range g.spec.Peers {
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

// costByPeer is an upper bound of the pods that a walk over the peers of a group looks at.
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

// fillByNetwork finds the members among the pods on the networks of the group: cheaper for a peer such as "all
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

// join adds a pod to a group, unless it is in it already or not on the group's networks.
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

// note notes that a pod contributes differently to a group now, and marks the local pods that use the group.
func (c *Cache) note(g *group, p *pod, before, now *podState) {
	if g.retired || g.empty || before == now || !c.changeShare(g, before, now) {
		return
	}
	g.changes.Lock()
	if earlier, ok := g.changes.pods[p]; ok {
		before = earlier.before
	}
	g.changes.pods[p] = change{before, now}
	g.changes.Unlock()
	for t := range g.targets {
		if t.mark != c.tick {
			t.mark = c.tick
			c.dirty[t.id()] = struct{}{}
		}
	}
}

// changeShare counts the shares of a pod in another state. It is false when they stay the same, and when no owner may use the
// group any more.
func (c *Cache) changeShare(g *group, before, now *podState) bool {
	c.scratch.before = g.networks.appendShares(c.scratch.before[:0], g.spec, before)
	c.scratch.after = g.networks.appendShares(c.scratch.after[:0], g.spec, now)
	if slices.Equal(c.scratch.before, c.scratch.after) {
		return false
	}
	c.resize(g, len(c.scratch.after)-len(c.scratch.before))
	return !g.empty
}

// regroup brings the groups that a pod is in up to date: before is the state that they know.
func (c *Cache) regroup(p *pod, before *podState) {
	matched := c.match(p)
	if len(matched) == 0 && len(p.groups) == 0 {
		return
	}
	c.next() // marks targets from here on
	old := p.groups
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

// releaseGroup takes a chain's use of a group back. A group without users is retired; retire cleans up after it.
func (c *Cache) releaseGroup(g *group, namespace string) {
	c.disown(g, c.namespaces[namespace])
	if g.users--; g.users == 0 && !g.retired {
		c.expel(g, namespace)
	}
}

// expel takes a group out of use. Workers of the namespace clean up after it.
func (c *Cache) expel(g *group, namespace string) {
	g.retired = true
	c.members -= g.size
	delete(c.groups, g.spec.Name())
	c.counts.groups.Add(-1)
	c.retired[namespace] = append(c.retired[namespace], g)
}

// retire removes the groups that local pods of a namespace have ceased to use from the indexes and from their members.
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
func (g *group) sets(i int) groupSets {
	g.content.Lock()
	defer g.content.Unlock()
	g.content.apply(g.networks, g.takeChanges())
	return g.content.sets(i)
}

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

// snapshot returns the members with all changes up to now.
func (g *group) snapshot() (sets.Addrs, sets.Endpoints) {
	g.sets(0)
	g.content.Lock()
	defer g.content.Unlock()
	return g.content.all(), g.content.endpoints
}
