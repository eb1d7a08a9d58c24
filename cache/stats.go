package cache

import "github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"

// Stats counts what a Cache holds.
type Stats struct {
	Pods, LocalPods, Namespaces, Networks, Sandboxes, PortLists int

	Policies        int
	ActivePolicies  int // that select a local pod
	InvalidPolicies int // with a field that cannot be understood

	Groups  int // peer groups that rules of local pods use
	Members int // ranges of addresses, and endpoints, in them

	SelectedPods     int // local pods that a policy selects
	WithoutSandbox   int // of these, pods that have been attached to networks and of which it is not known where they run
	Unsupported      int // local pods that a policy selects on a network whose plugin type is none of those that are isolated
	UnreadableStatus int // local pods whose interfaces are not known, so that it is not known whether a policy selects them
}

// Stats looks at each local pod, policy and group, and at no pod of another node.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Stats{
		Pods: len(c.pods), LocalPods: len(c.targets), Namespaces: len(c.namespaces), Networks: len(c.networks),
		Sandboxes: len(c.sandboxes), PortLists: len(c.ports), Policies: len(c.policies), Groups: len(c.groups),
	}
	active := map[*policy]struct{}{}
	for _, t := range c.targets {
		for _, p := range t.selected {
			active[p] = struct{}{}
		}
		unsupported := false
		c.eachUnsupported(t, func(*policy, *network) { unsupported = true })
		if unsupported {
			s.Unsupported++
		}
		if !t.pod.known {
			s.UnreadableStatus++
		}
		if len(t.selected) > 0 {
			s.SelectedPods++
			if !t.pod.expected && c.sandboxOf(t.pod) == (Sandbox{}) { // one that waits to start has none
				s.WithoutSandbox++
			}
		}
	}
	s.ActivePolicies = len(active)
	for _, p := range c.policies {
		if len(p.remarks.problems) > 0 {
			s.InvalidPolicies++
		}
	}
	for _, g := range c.groups {
		for _, f := range sets.Families {
			s.Members += g.addrs.Len(f) + g.endpoints.Len(f)
		}
	}
	return s
}
