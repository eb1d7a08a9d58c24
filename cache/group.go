package cache

import (
	"cmp"
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// group is a peer group in use: all that one list of peers means on one set of networks. It is made of addresses or,
// where its spec names ports, of endpoints: the addresses of the pods that have such a port, with the number.
type group struct {
	spec     *groupSpec
	networks []*network
	entries  []*peerEntry
	users    map[*policyChain]struct{}
	mark     uint64

	blocks    sets.Addrs // what is always in it
	addrs     sets.Addrs // blocks and pods
	endpoints sets.Endpoints
	more      map[sets.Endpoint]int // pods that have what another one already put in: it stays until the last has left
	kernel    [len(sets.Families)]*engine.Set
}

// acquireGroup returns the group of a spec for a chain that uses it, and finds its members if it is the first.
func (c *Cache) acquireGroup(spec *groupSpec, user *policyChain) *group {
	g := c.groups[spec.name]
	if g == nil {
		g = &group{spec: spec, networks: c.acquireNetworks(spec.networks), users: map[*policyChain]struct{}{}}
		c.groups[spec.name] = g
		c.activate(g)
	}
	g.users[user] = struct{}{}
	return g
}

func (c *Cache) releaseGroup(g *group, user *policyChain) {
	delete(g.users, user)
	if len(g.users) > 0 {
		return
	}
	for _, e := range g.entries {
		c.eachPod(e, func(p *pod) { p.groups = without(p.groups, g) })
	}
	for _, e := range g.entries {
		c.leave(g, e)
	}
	c.releaseNetworks(g.networks)
	delete(c.groups, g.spec.name)
}

// activate files a group in the indexes and finds its members among the pods on its networks.
func (c *Cache) activate(g *group) {
	for _, p := range g.spec.peers {
		for _, n := range g.networks {
			g.entries = append(g.entries, c.enter(g, p, n))
		}
	}
	var all []sets.Endpoint
	seen := c.next()
	for _, e := range g.entries {
		c.eachPod(e, func(p *pod) {
			if p.mark == seen {
				return
			}
			p.mark = seen
			p.groups = append(p.groups, g)
			all = g.appendShare(all, &p.podState)
		})
	}
	g.load(all)
}

// load fills a new group with what all its pods put in.
func (g *group) load(all []sets.Endpoint) {
	g.blocks = blocksOf(g.spec.blocks)
	all = slices.DeleteFunc(all, func(e sets.Endpoint) bool { return g.blocks.Contains(e.Addr) })
	slices.SortFunc(all, compareEndpoints)
	for i := 1; i < len(all); i++ {
		if all[i] == all[i-1] {
			g.addMore(all[i], 1)
		}
	}
	if g.spec.names != nil {
		g.endpoints = sets.NewEndpoints(all...)
		return
	}
	ranges := make([]sets.AddrRange, 0, len(all))
	for _, e := range all {
		ranges = append(ranges, sets.Single(e.Addr))
	}
	g.addrs = sets.NewAddrs(ranges...).Union(g.blocks)
}

// appendShare appends what a pod puts in the group: each thing once, sorted. An address is an endpoint without port.
func (g *group) appendShare(to []sets.Endpoint, s *podState) []sets.Endpoint {
	start := len(to)
	for _, a := range s.attachments {
		if !slices.Contains(g.networks, a.network) {
			continue
		}
		for _, addr := range a.addrs {
			if g.spec.names == nil {
				to = append(to, sets.Endpoint{Addr: addr})
				continue
			}
			for _, p := range s.ports {
				if slices.Contains(g.spec.names, p.portName) {
					to = append(to, sets.Endpoint{Addr: addr, Proto: p.proto, Port: p.number})
				}
			}
		}
	}
	slices.SortFunc(to[start:], compareEndpoints)
	return append(to[:start], slices.Compact(to[start:])...)
}

func compareEndpoints(a, b sets.Endpoint) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port))
}

// changeMember replaces what a pod puts in a group; nil is a pod that is not in it.
func (c *Cache) changeMember(g *group, before, now *podState) {
	if before == now {
		return
	}
	out, in := c.scratch.before[:0], c.scratch.now[:0]
	if before != nil {
		out = g.appendShare(out, before)
	}
	if now != nil {
		in = g.appendShare(in, now)
	}
	c.scratch.before, c.scratch.now = out, in
	changed := false
	// In before out: an address that moves between the interfaces of a pod never leaves.
	for _, e := range in {
		if _, stays := slices.BinarySearchFunc(out, e, compareEndpoints); !stays {
			changed = g.insert(e) || changed
		}
	}
	for _, e := range out {
		if _, stays := slices.BinarySearchFunc(in, e, compareEndpoints); !stays {
			changed = g.remove(e) || changed
		}
	}
	if !changed {
		return
	}
	for user := range g.users {
		for t := range user.targets {
			c.markMembers(t)
		}
	}
}

// insert adds what a pod puts in, and says whether that changed the set.
func (g *group) insert(e sets.Endpoint) bool {
	if g.blocks.Contains(e.Addr) {
		return false
	}
	if g.has(e) {
		g.addMore(e, 1)
		return false
	}
	g.put(e, sets.Addrs.Insert, sets.Endpoints.Insert)
	return true
}

// remove takes out what a pod put in, and says whether that changed the set.
func (g *group) remove(e sets.Endpoint) bool {
	if g.blocks.Contains(e.Addr) {
		return false
	}
	if g.more[e] > 0 {
		g.addMore(e, -1)
		return false
	}
	g.put(e, sets.Addrs.Remove, sets.Endpoints.Remove)
	return true
}

func (g *group) has(e sets.Endpoint) bool {
	if g.spec.names != nil {
		return g.endpoints.Contains(e)
	}
	return g.addrs.Contains(e.Addr)
}

func (g *group) put(e sets.Endpoint, addr func(sets.Addrs, sets.AddrRange) sets.Addrs,
	endpoint func(sets.Endpoints, sets.Endpoint) sets.Endpoints,
) {
	if g.spec.names != nil {
		g.endpoints = endpoint(g.endpoints, e)
	} else {
		g.addrs = addr(g.addrs, sets.Single(e.Addr))
	}
	g.kernel[slices.Index(sets.Families[:], sets.FamilyOf(e.Addr))] = nil
}

func (g *group) addMore(e sets.Endpoint, n int) {
	if g.more == nil {
		g.more = map[sets.Endpoint]int{}
	}
	g.more[e] += n
	if g.more[e] == 0 {
		delete(g.more, e)
	}
}

// set returns the group's set of one family, by the family's index. It is made once a version.
func (g *group) set(i int) *engine.Set {
	if g.kernel[i] != nil {
		return g.kernel[i]
	}
	f := sets.Families[i]
	s := &engine.Set{Name: g.spec.setName(f), Comment: g.spec.comment}
	if g.spec.names != nil {
		s.Elements = engine.Endpoints{Family: f, Endpoints: g.endpoints}
	} else {
		s.Elements = engine.Addrs{Family: f, Addrs: g.addrs}
	}
	g.kernel[i] = s
	return s
}
