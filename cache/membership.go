package cache

import (
	"cmp"
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// share is an element that a pod contributes to a group: an address (with protocol and port 0) or, for an endpoint
// group, an address with a port.
// Two pods that contribute the same share are counted by duplicates.
type share = sets.Endpoint

// compareShares orders shares by address, protocol and port.
func compareShares(a, b share) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port))
}

// appendShares appends the shares of a pod in a state, sorted, each once.
// A pod that is on none of the networks has none. The result may be in the array of the given slice.
func (n *networkSet) appendShares(to []share, spec *policy.Group, s *podState) []share {
	start := len(to)
	for i := range s.attachments {
		a := &s.attachments[i]
		if _, on := n.has[a.network]; !on {
			continue
		}
		for addr := range a.addrs.all() {
			if spec.Kind == engine.PeerGroup {
				to = append(to, share{Addr: addr})
				continue
			}
			for _, p := range s.ports {
				if _, named := slices.BinarySearchFunc(spec.Names, p.PortName, policy.PortName.Compare); named {
					to = append(to, share{Addr: addr, Proto: p.Proto, Port: p.Number})
				}
			}
		}
	}
	slices.SortFunc(to[start:], compareShares)
	return append(to[:start], slices.Compact(to[start:])...)
}

// membership is the content of a group. It knows no pods, only their shares. group.content guards it.
type membership struct {
	spec   *policy.Group
	bounds splitBounds
	blocks sets.Addrs // addresses of the ipBlocks, which are always members
	// addrs has the addresses of pods that no block has, by family; while the family is not split, it also has the
	// blocks.
	addrs      [len(sets.Families)]sets.Addrs
	hosts      [len(sets.Families)]int // number of these addresses of pods, by family
	endpoints  sets.Endpoints
	duplicates map[share]int                 // number of further pods that contribute a share: it stays until the last pod has left
	names      map[policy.PortName]int       // number of pods with a port of the name, of an endpoint group
	versions   [len(sets.Families)]groupSets // sets by family, made when they are read
	counts     *counts                       // counts of the cache
	counted    int64                         // ranges and endpoints that counts has for this group
}

// start sets the content of a new group: the blocks.
// It must be called before any other method.
func (m *membership) start(spec *policy.Group, blocks sets.Addrs, bounds splitBounds, counts *counts) {
	m.spec, m.blocks, m.bounds, m.counts = spec, blocks, bounds, counts
	m.addrs = [len(sets.Families)]sets.Addrs{blocks, blocks}
	m.count()
}

// end removes the group from the counts and frees its memory.
func (m *membership) end() {
	m.counts.members.Add(-m.counted)
	*m = membership{spec: m.spec, counts: m.counts}
}

// count updates the counts of the cache.
// It is called after each change of the content.
func (m *membership) count() {
	n := 0
	for i, f := range sets.Families {
		n += m.ranges(i) + m.endpoints.Len(f)
	}
	m.counts.members.Add(int64(n) - m.counted)
	m.counted = int64(n)
}

// apply applies the changes of pods to the content. It adds shares before it removes others, so that an address that
// moves from a pod to another pod never leaves the sets.
func (m *membership) apply(networks *networkSet, changes map[*pod]change) {
	if len(changes) == 0 {
		return
	}
	var added, removed []share
	var before, now []share
	for _, ch := range changes {
		before = networks.appendShares(before[:0], m.spec, ch.before)
		now = networks.appendShares(now[:0], m.spec, ch.now)
		added = appendMissing(added, now, before)
		removed = appendMissing(removed, before, now)
		// The names count even if the addresses stay the same.
		m.countNames(ch.before, networks, -1)
		m.countNames(ch.now, networks, 1)
	}
	if m.isFresh() {
		m.load(added)
	} else {
		for _, s := range added {
			m.insert(s)
		}
	}
	for _, s := range removed {
		m.remove(s)
	}
	m.count()
}

// appendMissing appends the shares of a sorted list that are not in another sorted list.
// Both lists must be sorted by compareShares.
func appendMissing(to, list, other []share) []share {
	for _, s := range list {
		if _, found := slices.BinarySearchFunc(other, s, compareShares); !found {
			to = append(to, s)
		}
	}
	return to
}

// countNames adds n to the number of pods for each name of a port in a state. Shortfalls depend on these numbers.
func (m *membership) countNames(s *podState, networks *networkSet, n int) {
	if m.spec.Kind != engine.EndpointGroup || !networks.admits(s.attachments) {
		return
	}
	if m.names == nil {
		m.names = map[policy.PortName]int{}
	}
	last := policy.PortName{}
	for _, p := range s.ports { // sorted: ports of one name stand together
		if p.PortName != last {
			last = p.PortName
			m.names[last] += n
		}
	}
}

// isFresh reports whether no pod has contributed yet.
func (m *membership) isFresh() bool {
	return m.hosts == [len(sets.Families)]int{} && m.endpoints.IsEmpty() && len(m.duplicates) == 0
}

// load fills a fresh group at once, which costs much less than many inserts.
// An address in a block is a member anyway, and never leaves.
func (m *membership) load(all []share) {
	all = slices.DeleteFunc(all, func(s share) bool { return m.blocks.Contains(s.Addr) })
	slices.SortFunc(all, compareShares)
	for i := 1; i < len(all); i++ {
		if all[i] == all[i-1] {
			m.duplicate(all[i], 1)
		}
	}
	for i := range m.versions {
		m.outdate(i)
	}
	if m.spec.Kind == engine.EndpointGroup {
		m.endpoints = sets.NewEndpoints(all...)
		return
	}
	var ranges [len(sets.Families)][]sets.AddrRange
	for _, s := range slices.Compact(all) {
		i := familyIndex(s)
		ranges[i] = append(ranges[i], sets.Single(s.Addr))
	}
	for i, list := range ranges {
		m.hosts[i] = len(list)
		m.addrs[i] = m.addrs[i].Union(sets.NewAddrs(list...))
	}
}

// insert adds a share. Another pod may contribute the same share already.
// Then only the number of its pods grows.
func (m *membership) insert(s share) {
	switch {
	case m.blocks.Contains(s.Addr):
	case m.has(s):
		m.duplicate(s, 1)
	case m.spec.Kind == engine.EndpointGroup:
		m.endpoints = m.endpoints.Insert(s)
		m.outdate(familyIndex(s))
	default:
		m.change(s, sets.Addrs.Insert, 1)
	}
}

// remove removes a share, unless another pod contributes it too.
// It must have been inserted before.
func (m *membership) remove(s share) {
	switch {
	case m.blocks.Contains(s.Addr):
	case m.duplicates[s] > 0:
		m.duplicate(s, -1)
	case m.spec.Kind == engine.EndpointGroup:
		m.endpoints = m.endpoints.Remove(s)
		m.outdate(familyIndex(s))
	default:
		m.change(s, sets.Addrs.Remove, -1)
	}
}

// change inserts or removes the address of a pod. n is 1 or -1.
// with is sets.Addrs.Insert or sets.Addrs.Remove.
func (m *membership) change(s share, with func(sets.Addrs, sets.AddrRange) sets.Addrs, n int) {
	i := familyIndex(s)
	next := with(m.addrs[i], sets.Single(s.Addr))
	if next == m.addrs[i] {
		return
	}
	m.addrs[i] = next
	m.hosts[i] += n
	m.outdate(i)
}

// has reports whether a pod contributes the share.
func (m *membership) has(s share) bool {
	if m.spec.Kind == engine.EndpointGroup {
		return m.endpoints.Contains(s)
	}
	return m.addrs[familyIndex(s)].Contains(s.Addr)
}

// duplicate adds n to the number of further pods that contribute a share.
// A share with 0 further pods has no entry.
func (m *membership) duplicate(s share, n int) {
	if m.duplicates == nil {
		m.duplicates = map[share]int{}
	}
	if m.duplicates[s] += n; m.duplicates[s] == 0 {
		delete(m.duplicates, s)
	}
}

// familyIndex returns the index of a share's family in sets.Families.
func familyIndex(s share) int { return slices.Index(sets.Families[:], sets.FamilyOf(s.Addr)) }

// outdate notes that the sets of a family must be made again. i is the family's index.
func (m *membership) outdate(i int) { m.versions[i].isCurrent = false }

// sets returns the sets of a family. i is the family's index. They are made once for each version of the content, so
// that equal content has equal pointers.
func (m *membership) sets(i int) groupSets {
	v := &m.versions[i]
	if v.isCurrent {
		return *v
	}
	f := sets.Families[i]
	name := m.spec.SetName(f)
	v.isCurrent = true
	if m.spec.Kind == engine.EndpointGroup {
		v.set = m.newSet(name, engine.Endpoints{Family: f, Endpoints: m.endpoints})
		return *v
	}
	wasSplit := v.pods != nil
	split := m.bounds.isSplit(wasSplit, m.ranges(i), m.hosts[i])
	// A family that is split or merged moves the blocks out of addrs, or back into it.
	switch {
	case split && !wasSplit:
		m.addrs[i] = m.addrs[i].Difference(m.blocks)
		v.set = m.newSet(name, engine.Addrs{Family: f, Addrs: m.blocks})
	case !split && wasSplit:
		m.addrs[i] = m.addrs[i].Union(m.blocks)
	}
	if split {
		v.pods = m.newSet(engine.PodsSet(name), engine.Hosts{Family: f, Addrs: m.addrs[i], Count: m.hosts[i]})
	} else {
		v.set, v.pods = m.newSet(name, engine.Addrs{Family: f, Addrs: m.addrs[i]}), nil
	}
	return *v
}

// ranges returns the number of ranges of a family, as the decision to split needs it. While the family is split,
// neighbors among pods and blocks count twice.
func (m *membership) ranges(i int) int {
	n := m.addrs[i].Len(sets.Families[i])
	if m.versions[i].pods != nil {
		n += m.blocks.Len(sets.Families[i])
	}
	return n
}

// all returns the addresses of pods and blocks of both families.
// It is for explanations.
func (m *membership) all() sets.Addrs {
	all := m.blocks
	for _, addrs := range m.addrs {
		all = addrs.Union(all)
	}
	return all
}

// newSet returns a version of a set of the group.
func (m *membership) newSet(name string, e engine.Elements) *engine.Set {
	return &engine.Set{Name: name, Comment: m.spec.Comment, Elements: e}
}
