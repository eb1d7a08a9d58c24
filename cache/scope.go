package cache

import (
	"cmp"
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// scope is a set of namespaces in which active groups look for peers, with an index of the groups' selectors of pods.
// It exists while a group uses it.
// An example: two policies that allow pods of namespaces with team=a share the scope, even with different
// podSelectors.
type scope struct {
	// key identifies the scope; id orders the scopes with a selector by creation.
	key        policy.Scope
	id         uint64
	namespaces *labelindex.Selector // nil: a single namespace
	anchor     labelindex.Anchor
	// The same entries: by the labels that they require, for events of pods, and by the text of the selector, for new
	// groups.
	entries    labelindex.Index[*peerEntry]
	bySelector map[string]*peerEntry
}

// compareScopes orders scopes by their creation.
func compareScopes(a, b *scope) int { return cmp.Compare(a.id, b.id) }

// peerEntry is a selector of pods in a scope, and the groups that have it as a peer.
// Groups with equal selectors in a scope share the entry, so a pod is matched once for all of them.
type peerEntry struct {
	scope  *scope
	pods   *labelindex.Selector
	anchor labelindex.Anchor
	groups map[*networkSet][]*group // groups by their networks, since a pod is a member only on these
}

// selects reports whether a namespace is in the scope. Unknown labels match only a selector without conditions:
// otherwise a NotIn would admit namespaces that it must exclude.
func (s *scope) selects(ns *namespace) bool {
	if s.namespaces == nil {
		return ns.name == s.key.Namespace
	}
	return s.namespaces.MatchesAll() || ns.known && s.namespaces.Matches(&ns.labels)
}

// scope returns the scope of a peer, and makes it if it does not exist. It may release the lock meanwhile, so the
// caller must not rely on earlier reads.
func (c *Cache) scope(p policy.Peer) *scope {
	if s := c.scopes[p.Scope]; s != nil {
		return s
	}
	s := &scope{key: p.Scope, namespaces: p.Namespaces, bySelector: map[string]*peerEntry{}}
	if s.namespaces == nil {
		// A scope of a single namespace belongs to it, and needs no index.
		ns := c.namespace(s.key.Namespace)
		ns.own = s
		c.scopes[p.Scope] = s
		return s
	}
	// The selector is matched without the lock: a cluster may have thousands of namespaces.
	matched := c.selectNamespaces(s)
	// Another worker may have made the scope meanwhile.
	if other := c.scopes[p.Scope]; other != nil {
		return other
	}
	c.scopes[p.Scope] = s
	c.lastID++
	s.id = c.lastID
	// The index finds the scope for a namespace that comes or changes later.
	s.anchor = c.labels.Add(s.namespaces, s)
	// Namespaces may have come or changed meanwhile, so the result is checked against their versions.
	for _, ns := range c.namespaces {
		m, known := matched[ns]
		if !known || m.version != ns.relabeled { // the namespace came or changed meanwhile
			m.in = s.selects(ns)
		}
		if m.in {
			ns.scopes = append(ns.scopes, s) // it has the highest ID
		}
	}
	return s
}

// scopeMatch is the result for a namespace, and the version of its labels to which the result belongs.
type scopeMatch struct {
	in      bool
	version int
}

// selectNamespaces matches the selector of a scope with all namespaces. It releases the lock meanwhile.
func (c *Cache) selectNamespaces(s *scope) map[*namespace]scopeMatch {
	type labels struct {
		ns      *namespace
		known   bool
		labels  labelindex.Set
		version int
	}
	all := make([]labels, 0, len(c.namespaces))
	for _, ns := range c.namespaces {
		all = append(all, labels{ns, ns.known, ns.labels, ns.relabeled})
	}
	c.unlock()
	matched := make(map[*namespace]scopeMatch, len(all))
	for _, l := range all {
		matched[l.ns] = scopeMatch{s.namespaces.MatchesAll() || l.known && s.namespaces.Matches(&l.labels), l.version}
	}
	c.lock()
	return matched
}

// dropScope forgets a scope that no group uses.
// The caller holds the lock, which walk may release.
func (c *Cache) dropScope(s *scope, walk *slice) {
	if s.entries.Len() > 0 {
		return
	}
	delete(c.scopes, s.key)
	if s.namespaces == nil {
		ns := c.namespaces[s.key.Namespace]
		ns.own = nil
		c.dropNamespace(ns)
		return
	}
	c.labels.Remove(s.anchor, s)
	for _, ns := range c.namespaces {
		// The list of a namespace is sorted by ID, and a scope of a selector has a unique ID.
		if i, found := slices.BinarySearchFunc(ns.scopes, s, compareScopes); found {
			ns.scopes = slices.Delete(ns.scopes, i, i+1)
		}
		walk.step()
	}
}

// enter adds a group to the entry of a peer, and returns the entry. The entry is made if it does not exist.
func (c *Cache) enter(g *group, p policy.Peer) *peerEntry {
	s := c.scope(p)
	e := s.bySelector[p.Pods.String()]
	if e == nil {
		e = &peerEntry{scope: s, pods: p.Pods, groups: map[*networkSet][]*group{}}
		e.anchor = s.entries.Add(p.Pods, e)
		s.bySelector[p.Pods.String()] = e
	}
	e.groups[g.networks] = append(e.groups[g.networks], g)
	return e
}

// leave removes a group from an entry, and drops the entry and its scope after the last group.
// The caller holds the lock, which walk may release.
func (c *Cache) leave(g *group, e *peerEntry, walk *slice) {
	// The lists are per set of networks, so that a pod is compared only with groups on its networks.
	if rest := without(e.groups[g.networks], g); len(rest) > 0 {
		e.groups[g.networks] = rest
		return
	}
	delete(e.groups, g.networks)
	if len(e.groups) > 0 {
		return
	}
	e.scope.entries.Remove(e.anchor, e)
	delete(e.scope.bySelector, e.pods.String())
	c.dropScope(e.scope, walk)
}

// match returns the active groups that a pod belongs to, sorted by ID. The slice is valid until the next event.
func (c *Cache) match(p *pod) []*group {
	mark := c.next()
	out := c.scratch.groups[:0]
	// A pod without an interface has no address, so it is a member of no group.
	if len(p.state.attachments) > 0 {
		if p.namespace.own != nil {
			out = c.matchScope(out, p.namespace.own, p, mark)
		}
		for _, s := range p.namespace.scopes {
			out = c.matchScope(out, s, p, mark)
		}
	}
	slices.SortFunc(out, compareGroups)
	c.scratch.groups = out
	return out
}

// matchScope appends the groups of a scope that the pod belongs to.
func (c *Cache) matchScope(out []*group, s *scope, p *pod, mark uint64) []*group {
	c.scratch.entries = s.entries.AppendCandidates(c.scratch.entries[:0], p.state.labels)
	for _, e := range c.scratch.entries {
		if e.pods.Matches(&p.state.labels) {
			out = e.appendGroups(out, p, mark)
		}
	}
	return out
}

// appendGroups appends the groups of the entry whose networks the pod is on, each group once. It looks at the networks
// of the pod or at the sets of networks that groups here have, whichever are fewer.
func (e *peerEntry) appendGroups(out []*group, p *pod, mark uint64) []*group {
	add := func(groups []*group) {
		for _, g := range groups {
			// A group with several peers may be found several times; the mark makes it count once.
			if g.mark != mark && !g.retired {
				g.mark = mark
				out = append(out, g)
			}
		}
	}
	// Number of sets of networks that contain a network of the pod.
	containing := 0
	for i := range p.state.attachments {
		containing += len(p.state.attachments[i].network.sets)
	}
	if containing < len(e.groups) {
		for i := range p.state.attachments {
			for _, s := range p.state.attachments[i].network.sets {
				add(e.groups[s])
			}
		}
		return out
	}
	for s, groups := range e.groups {
		if s.admits(p.state.attachments) {
			add(groups)
		}
	}
	return out
}

// eachPod calls f, in slices, with each pod that the entry selects. It may leave out a pod that changes between two
// slices, or call f twice with it: the event of the pod has updated its groups.
func (c *Cache) eachPod(e *peerEntry, walk *slice, f func(*pod)) {
	if e.scope.namespaces == nil {
		c.eachPodIn(c.namespaces[e.scope.key.Namespace], e, walk, f)
		return
	}
	for _, ns := range c.namespaces {
		if len(ns.pods) > 0 && e.scope.selects(ns) {
			c.eachPodIn(ns, e, walk, f)
		}
		walk.step()
	}
}

// eachPodIn does the work of eachPod for a namespace.
func (c *Cache) eachPodIn(ns *namespace, e *peerEntry, walk *slice, f func(*pod)) {
	visit := func(p *pod) {
		if !p.gone && e.pods.Matches(&p.state.labels) && e.scope.selects(ns) {
			f(p)
		}
		walk.step()
	}
	if list, ok := ns.podCandidates(e.pods, walk); ok {
		for _, p := range list {
			visit(p)
		}
		return
	}
	for p := range ns.pods {
		visit(p)
	}
}

// without removes an item from a list. It changes the order.
// It clears the freed place, so that the item can be collected.
func without[T comparable](list []T, item T) []T {
	i := slices.Index(list, item)
	if i < 0 {
		return list
	}
	var zero T
	last := len(list) - 1
	list[i], list[last] = list[last], zero
	return list[:last]
}
