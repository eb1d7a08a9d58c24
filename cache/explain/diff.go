package explain

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Change lists the connections that pass on an interface of a pod in one state of the cluster and not in the other. Its
// JSON form is the output of explain diff --output json.
type Change struct {
	Pod       string `json:"pod"`
	Interface string `json:"interface"`
	Direction string `json:"direction"`
	// Before and After are the states of the interface; they may differ while the same connections pass.
	Before AccessState `json:"before"`
	After  AccessState `json:"after"`
	Opened []Flow      `json:"opened,omitempty"`
	Closed []Flow      `json:"closed,omitempty"`
}

// Flow is a set of connections: each of the peers with each of the ports.
type Flow struct {
	Peers Selection `json:"peers"`
	Ports Selection `json:"ports"`
	// Pods are the pods with addresses among the peers, unless these are most of all addresses.
	Pods []string `json:"pods,omitempty"`
}

// Selection is a list of ranges, or everything but a list of ranges, whichever is shorter.
// At most a single list has elements. All with neither list is everything; no field at all is nothing.
type Selection struct {
	All    bool     `json:"all,omitempty"`
	Ranges []string `json:"ranges,omitempty"`
	Except []string `json:"except,omitempty"`
}

// Diff returns the connections that pass after and did not before, and the other way round, for all interfaces that are
// isolated in either state, sorted by pod, interface and direction. It also returns an interface that policies begin to
// isolate in vain. It compares the sets that tables consist of, so its cost does not depend on the number of possible
// connections. It leaves out neighbor discovery and custom rules, which are the same in both states. A pod whose
// network status cannot be read has no interfaces here.
func Diff(before, after *cache.Cache) []Change {
	var changes []Change
	// Both caches are asked about all pods of either cache.
	for _, key := range slices.SortedFunc(maps.Keys(podsOf(before, after)), policy.CompareKeys) {
		was, is := accessOf(before, key), accessOf(after, key)
		places := map[place]bool{}
		// Only an interface that is isolated in either state can differ.
		for _, side := range []map[place]access{was, is} {
			for p, a := range side {
				places[p] = places[p] || a.state == Isolated || a.state == Unenforced
			}
		}
		for _, p := range slices.SortedFunc(maps.Keys(places), place.compare) {
			if !places[p] {
				continue
			}
			change := compareAccess(was[p], is[p], before, after)
			if len(change.Opened)+len(change.Closed) == 0 && (change.After != Unenforced || change.Before == Unenforced) {
				continue
			}
			change.Pod, change.Interface, change.Direction = key.String(), p.iface, p.direction.String()
			changes = append(changes, change)
		}
	}
	return changes
}

// podsOf returns the pods of all caches.
// A pod may be in a single cache of them.
func podsOf(caches ...*cache.Cache) map[cache.Key]bool {
	keys := map[cache.Key]bool{}
	for _, c := range caches {
		for _, k := range c.Pods() {
			keys[k] = true
		}
	}
	return keys
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.iface, q.iface), cmp.Compare(p.direction, q.direction))
}

// compareAccess returns the difference between two accesses. Pods are named as in the state in which the connections
// pass.
// The state of a place that is missing is Absent.
func compareAccess(was, is access, before, after *cache.Cache) Change {
	opened, closed := flows{}, flows{}
	newSweep(was.terms, is.terms).run(func(r sets.AddrRange, d difference) {
		opened.add(r, d.opened)
		closed.add(r, d.closed)
	})
	return Change{
		Before: cmp.Or(was.state, Absent), After: cmp.Or(is.state, Absent),
		Opened: opened.list(after), Closed: closed.list(before),
	}
}

// flows are ranges of addresses, by the text of their ports: ranges with the same ports become a single Flow.
// The text is the key, since sets of ports have no comparable form.
type flows map[string]*flow

// flow has the ranges of a Flow while they are collected.
type flow struct {
	ports sets.Ports
	addrs []sets.AddrRange
}

// add adds a range with its ports; no ports are no connection.
func (f flows) add(r sets.AddrRange, ports sets.Ports) {
	if ports.IsEmpty() {
		return
	}
	key := selectPorts(ports).String()
	if f[key] == nil {
		f[key] = &flow{ports: ports}
	}
	f[key].addrs = append(f[key].addrs, r)
}

// list returns the flows in words, sorted, with the names of the pods that the cache knows.
func (f flows) list(c *cache.Cache) []Flow {
	var out []Flow
	for _, one := range f {
		addrs := sets.NewAddrs(one.addrs...)
		flow := Flow{Peers: selectAddrs(addrs), Ports: selectPorts(one.ports)}
		// A list of most pods of a cluster would not help.
		if !flow.Peers.All {
			flow.Pods = podsIn(c, addrs)
		}
		out = append(out, flow)
	}
	slices.SortFunc(out, func(a, b Flow) int {
		return cmp.Or(cmp.Compare(a.Peers.String(), b.Peers.String()), cmp.Compare(a.Ports.String(), b.Ports.String()))
	})
	return out
}

// podsIn returns the pods that have any of the addresses.
func podsIn(c *cache.Cache, addrs sets.Addrs) []string {
	var names []string
	c.Peers(func(p cache.PeerView) {
		isIn := func(a cache.AttachmentView) bool { return slices.ContainsFunc(a.Addrs, addrs.Contains) }
		if slices.ContainsFunc(p.Attachments, isIn) {
			names = append(names, p.Key.String())
		}
	})
	slices.Sort(names)
	return names
}

// selectAddrs returns a selection of addresses of both families.
func selectAddrs(a sets.Addrs) Selection {
	texts := func(a sets.Addrs) (texts []string) {
		for _, f := range sets.Families {
			for r := range a.Ranges(f) {
				texts = append(texts, r.String())
			}
		}
		return texts
	}
	return shorter(texts(a), texts(everyAddr.Difference(a)))
}

// selectPorts returns a selection of protocols and ports.
func selectPorts(p sets.Ports) Selection {
	texts := func(p sets.Ports) (texts []string) {
		for r := range p.Ranges() {
			texts = append(texts, protocolPortText(r))
		}
		return texts
	}
	return shorter(texts(p), texts(everyPort.Difference(p)))
}

// shorter returns the ranges, or all but the exceptions if these are fewer.
// A user reads "all but 10.0.0.1" faster than two ranges around it.
func shorter(ranges, except []string) Selection {
	if len(except) < len(ranges) {
		return Selection{All: true, Except: except}
	}
	return Selection{Ranges: ranges}
}

// protocolPortText returns "80/tcp", or the name of a protocol without ports.
func protocolPortText(r sets.PortRange) string {
	switch r.Proto {
	case protoICMP:
		return "icmp"
	case protoICMPv6:
		return "icmpv6"
	case otherProtocols:
		return "other protocols"
	}
	return portRangeText(r)
}

// String returns "10.0.0.0/24, 10.1.0.1", "all" or "all but 10.0.0.1".
func (s Selection) String() string {
	switch {
	case !s.All:
		return strings.Join(s.Ranges, ", ")
	case len(s.Except) > 0:
		return "all but " + strings.Join(s.Except, ", ")
	}
	return "all"
}
