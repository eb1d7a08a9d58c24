package cache

import "slices"

// scopeKey is what a scope is known by: one namespace, or the text of a selector of namespaces.
type scopeKey struct {
	namespace string // empty: by selector
	selector  string
}

// scope is a set of namespaces that peers of active groups are looked for in, with the index of the selectors of pods.
// It exists while a group uses it.
type scope struct {
	key        scopeKey
	namespaces *selector // nil: one namespace
	members    map[*namespace]struct{}
	indexes    map[*network]*peerIndex
}

// peerIndex finds the entries of one scope and network that may match a pod by the pod's labels.
type peerIndex struct {
	labelIndex[*peerEntry]
	bySelector map[string]*peerEntry
}

// peerEntry is one selector of pods in one scope and network, and the groups that have it.
type peerEntry struct {
	scope   *scope
	network *network
	pods    *selector
	anchor  anchor
	groups  []*group
}

// selects says whether a namespace is in the scope. Labels that are not known match no selector but the one that asks
// for nothing: a NotIn would otherwise let in what it is there to keep out.
func (s *scope) selects(ns *namespace) bool {
	if s.namespaces == nil {
		return ns.name == s.key.namespace
	}
	return s.namespaces.all() || ns.known && s.namespaces.matches(&ns.labels)
}

// scope returns the scope of a peer, and makes it when there is none.
func (c *Cache) scope(p peer) *scope {
	if s := c.scopes[p.scope]; s != nil {
		return s
	}
	s := &scope{
		key:        p.scope,
		namespaces: p.namespaces,
		members:    map[*namespace]struct{}{},
		indexes:    map[*network]*peerIndex{},
	}
	if s.namespaces == nil {
		ns := c.namespace(s.key.namespace)
		ns.own = s
		s.members[ns] = struct{}{}
	} else {
		for _, ns := range c.namespaces {
			if s.selects(ns) {
				s.members[ns] = struct{}{}
				ns.scopes = append(ns.scopes, s)
			}
		}
	}
	c.scopes[p.scope] = s
	return s
}

// dropScope forgets a scope that no group uses.
func (c *Cache) dropScope(s *scope) {
	if len(s.indexes) > 0 {
		return
	}
	delete(c.scopes, s.key)
	for ns := range s.members {
		if s.namespaces != nil {
			ns.scopes = without(ns.scopes, s)
		} else {
			ns.own = nil
		}
		c.dropNamespace(ns)
	}
}

// enter files a group under a peer on one of its networks, and returns the entry.
func (c *Cache) enter(g *group, p peer, n *network) *peerEntry {
	s := c.scope(p)
	x := s.indexes[n]
	if x == nil {
		x = &peerIndex{bySelector: map[string]*peerEntry{}}
		s.indexes[n] = x
	}
	e := x.bySelector[p.pods.text]
	if e == nil {
		e = &peerEntry{scope: s, network: n, pods: p.pods}
		e.anchor = x.add(p.pods, e)
		x.bySelector[p.pods.text] = e
	}
	e.groups = append(e.groups, g)
	return e
}

// leave takes a group out of an entry.
func (c *Cache) leave(g *group, e *peerEntry) {
	e.groups = without(e.groups, g)
	if len(e.groups) > 0 {
		return
	}
	x := e.scope.indexes[e.network]
	x.remove(e.anchor, e)
	delete(x.bySelector, e.pods.text)
	if x.items == 0 {
		delete(e.scope.indexes, e.network)
		c.dropScope(e.scope)
	}
}

// eachPod calls f with each pod that the entry selects.
func (c *Cache) eachPod(e *peerEntry, f func(*pod)) {
	for ns := range e.scope.members {
		for p := range c.candidates(crowd{e.network, ns}, e.pods) {
			if e.pods.matches(&p.labels) {
				f(p)
			}
		}
	}
}

// match returns the active groups that a pod is in, which has changed, each marked with a new tick. The slice is scratch.
func (c *Cache) match(p *pod) []*group {
	c.next()
	clear(c.crowds)
	out := c.scratch.groups[:0]
	for i, a := range p.attachments {
		if slices.ContainsFunc(p.attachments[:i], func(b attachment) bool { return b.network == a.network }) {
			continue
		}
		if p.namespace.own != nil {
			out = c.matchScope(out, p.namespace.own, a.network, p)
		}
		for _, s := range p.namespace.scopes {
			out = c.matchScope(out, s, a.network, p)
		}
	}
	c.scratch.groups = out
	return out
}

func (c *Cache) matchScope(out []*group, s *scope, n *network, p *pod) []*group {
	x := s.indexes[n]
	if x == nil {
		return out
	}
	c.scratch.entries = x.appendCandidates(c.scratch.entries[:0], p.labels)
	for _, e := range c.scratch.entries {
		if !e.pods.matches(&p.labels) {
			continue
		}
		for _, g := range e.groups {
			if g.mark != c.tick {
				g.mark = c.tick
				out = append(out, g)
			}
		}
	}
	return out
}
