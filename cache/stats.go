package cache

import "sync/atomic"

// Stats counts the objects in a Cache at a moment. The metrics of the agent come from it.
type Stats struct {
	Pods, LocalPods, Namespaces, Networks, Sandboxes, PortLists int64

	Policies        int64
	ActivePolicies  int64 // policies that select a local pod
	InvalidPolicies int64 // policies with a field that allows nothing because it is invalid or exceeds a limit
	LimitedPolicies int64 // invalid policies that exceed a limit
	AuditedPolicies int64 // policies in audit mode

	Groups  int64 // peer groups that rules of local pods use
	Members int64 // ranges of addresses, and endpoints, in these groups

	SelectedPods     int64 // local pods that a policy selects
	WithoutSandbox   int64 // of the selected pods, pods with a network status whose sandbox is unknown
	Unsupported      int64 // local pods that a policy selects on a network with a plugin type that --network-plugins lacks
	NotEnforceable   int64 // local pods that a policy selects on an interface whose packets the kernel hides from rules
	UnreadableStatus int64 // local pods whose interfaces are unknown
	UnknownSandboxes int64 // sandboxes whose pod is no local pod
	BridgesEnforced  int64 // local pods with a bridge that a policy selects, if policies are enforced in the bridge
	BridgesDropped   int64 // the same, if the kernel can only drop there
	BridgesOpen      int64 // the same, if the kernel cannot even drop there
	LimitedPods      int64 // local pods that exceed a limit, or whose policies together exceed a limit

	LimitedNamespaces int64 // namespaces whose pods have more addresses than the limit
}

// counts has the numbers of Stats. Each event updates them, so that reading them takes no lock.
type counts struct {
	pods, localPods, namespaces, networks, sandboxes, portLists atomic.Int64
	policies, active, invalid, limited, audited                 atomic.Int64
	groups, members                                             atomic.Int64
	selected, withoutSandbox, unsupported, unreadable           atomic.Int64
	withSandbox                                                 atomic.Int64
	limitedPods, limitedNamespaces, notEnforceable              atomic.Int64
	bridges                                                     [BridgeMissing + 1]atomic.Int64 // by support
}

// Stats returns the counts now. It takes no lock, so an event may change some counts between the reads of others.
func (c *Cache) Stats() Stats {
	n := &c.counts
	return Stats{
		Pods: n.pods.Load(), LocalPods: n.localPods.Load(), Namespaces: n.namespaces.Load(), Networks: n.networks.Load(),
		Sandboxes: n.sandboxes.Load(), PortLists: n.portLists.Load(),
		Policies: n.policies.Load(), ActivePolicies: n.active.Load(), InvalidPolicies: n.invalid.Load(), LimitedPolicies: n.limited.Load(),
		AuditedPolicies: n.audited.Load(),
		Groups:          n.groups.Load(), Members: n.members.Load(),
		SelectedPods: n.selected.Load(), WithoutSandbox: n.withoutSandbox.Load(), Unsupported: n.unsupported.Load(),
		UnreadableStatus: n.unreadable.Load(), UnknownSandboxes: n.sandboxes.Load() - n.withSandbox.Load(), LimitedPods: n.limitedPods.Load(),
		LimitedNamespaces: n.limitedNamespaces.Load(), NotEnforceable: n.notEnforceable.Load(),
		BridgesEnforced: n.bridges[BridgeStateful].Load(), BridgesDropped: n.bridges[BridgeDrops].Load(), BridgesOpen: n.bridges[BridgeMissing].Load(),
	}
}

// flags are the counts of Stats in which a local pod is counted now. setFlags adds and removes the pod by the
// difference.
// A flag is a condition of the pod, so a pod counts at most once for each.
type flags struct {
	selected, withoutSandbox, unsupported, notEnforceable, unreadable, limited, withSandbox, hasBridge bool
}

// recount updates the counts for a local pod.
// The caller holds the lock. It must be called after each event that can change a flag.
func (c *Cache) recount(t *target) {
	s := t.pod.state
	f := flags{
		selected: t.selected.count > 0, unsupported: len(t.plan.unsupported) > 0, unreadable: !s.known,
		notEnforceable: len(t.plan.unenforced) > 0,
		hasBridge:      t.selected.count > 0 && t.hasBridge(),
		limited:        s.overflow || s.cutLabels || t.plan.limited > 0 || t.closed != nil,
	}
	f.withSandbox = c.sandboxOf(t.pod) != (Sandbox{})
	f.withoutSandbox = f.selected && s.attached && !f.withSandbox
	c.setFlags(t, f)
}

// setFlags changes the counts by the difference between the flags before and now.
func (c *Cache) setFlags(t *target, f flags) {
	for _, n := range []struct {
		count    *atomic.Int64
		was, now bool
	}{
		{&c.counts.selected, t.flags.selected, f.selected},
		{&c.counts.withoutSandbox, t.flags.withoutSandbox, f.withoutSandbox},
		{&c.counts.unsupported, t.flags.unsupported, f.unsupported},
		{&c.counts.notEnforceable, t.flags.notEnforceable, f.notEnforceable},
		{&c.counts.unreadable, t.flags.unreadable, f.unreadable},
		{&c.counts.limitedPods, t.flags.limited, f.limited},
		{&c.counts.bridges[c.options.Bridge], t.flags.hasBridge, f.hasBridge},
		{&c.counts.withSandbox, t.flags.withSandbox, f.withSandbox},
	} {
		switch {
		case n.now && !n.was:
			n.count.Add(1)
		case n.was && !n.now:
			n.count.Add(-1)
		}
	}
	t.flags = f
}
