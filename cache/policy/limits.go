package policy

import "fmt"

// Limits bound the cost of policies and pods. The part of a policy that exceeds a limit allows nothing. The policy still isolates
// its pods, and a Problem names the limit. The defaults are about ten times above the largest values that users report.
//
// LimitDocs describes each limit.
type Limits struct {
	// For each policy.
	PolicyNetworks    int
	PolicyRules       int
	PolicyPeers       int
	PolicyBlocks      int
	PolicyPorts       int
	PolicyExpressions int
	PolicyLabels      int

	// For all policies of a namespace together.
	NamespaceItems        int
	NamespaceClusterPeers int
	NamespaceMembers      int

	// For all pods of a namespace together.
	NamespaceAddresses int

	// For the node. If all namespaces together exceed such a limit, each namespace gets an equal share.
	NodeItems   int
	NodeMembers int
	NodeMemory  int

	// For each pod.
	PodInterfaces int
	PodAddresses  int
	PodPorts      int
	PodLabelBytes int
	PodPolicies   int
	PodSets       int
	PodRules      int
	PodMemory     int
}

// DefaultLimits returns the limits of an agent without the flag --limit.
func DefaultLimits() Limits {
	var l Limits
	for _, d := range limitDocs {
		*d.of(&l) = d.Default
	}
	return l
}

// LimitDoc describes a limit for users.
type LimitDoc struct {
	Name    string // as in --limit NAME=N
	Default int
	Counts  string             // the things that the limit counts
	of      func(*Limits) *int // the field
}

// limitDocs lists all limits. docs/limits.md is generated from it.
var limitDocs = []LimitDoc{
	{"policy-networks", 100, "networks in the annotation policy-for", func(l *Limits) *int { return &l.PolicyNetworks }},
	{"policy-rules", 1000, "rules of a policy, ingress and egress together", func(l *Limits) *int { return &l.PolicyRules }},
	{"policy-peers", 5000, "peers of a policy, over all rules", func(l *Limits) *int { return &l.PolicyPeers }},
	{"policy-blocks", 20000, "CIDRs of a policy, excepts included", func(l *Limits) *int { return &l.PolicyBlocks }},
	{"policy-ports", 5000, "ports of a policy, over all rules", func(l *Limits) *int { return &l.PolicyPorts }},
	{"policy-expressions", 200, "matchExpressions of a policy, over all selectors", func(l *Limits) *int { return &l.PolicyExpressions }},
	{"policy-labels", 10000, "labels and values in the selectors of a policy", func(l *Limits) *int { return &l.PolicyLabels }},
	{"namespace-items", 50_000, "rules, peers, CIDRs, ports, labels and networks of all policies of a namespace; a policy counts as ten more", func(l *Limits) *int { return &l.NamespaceItems }},
	{"namespace-cluster-peers", 1000, "peers with a namespaceSelector in all policies of a namespace", func(l *Limits) *int { return &l.NamespaceClusterPeers }},
	{"namespace-members", 250_000, "pods in the peer groups that policies of a namespace use on a node, each as often as groups have it", func(l *Limits) *int { return &l.NamespaceMembers }},
	{"namespace-addresses", 2500, "addresses of all pods of a namespace as peers", func(l *Limits) *int { return &l.NamespaceAddresses }},
	{"node-items", 500_000, "as namespace-items, of all namespaces", func(l *Limits) *int { return &l.NodeItems }},
	{"node-members", 1_000_000, "as namespace-members, of all namespaces", func(l *Limits) *int { return &l.NodeMembers }},
	{"node-memory", 300, "MiB of kernel memory of all tables of a node", func(l *Limits) *int { return &l.NodeMemory }},
	{"pod-interfaces", 64, "interfaces of a pod", func(l *Limits) *int { return &l.PodInterfaces }},
	{"pod-addresses", 64, "addresses of a pod as a peer", func(l *Limits) *int { return &l.PodAddresses }},
	{"pod-ports", 100, "named ports of a pod", func(l *Limits) *int { return &l.PodPorts }},
	{"pod-label-bytes", 4096, "bytes of all labels of a pod", func(l *Limits) *int { return &l.PodLabelBytes }},
	{"pod-policies", 500, "policies that select a pod", func(l *Limits) *int { return &l.PodPolicies }},
	{"pod-sets", 2000, "sets in the table of a pod", func(l *Limits) *int { return &l.PodSets }},
	{"pod-rules", 5000, "rules in the table of a pod", func(l *Limits) *int { return &l.PodRules }},
	{"pod-memory", 64, "MiB of kernel memory of the table of a pod", func(l *Limits) *int { return &l.PodMemory }},
}

// LimitDocs returns the descriptions of all limits. The caller must not change them.
func LimitDocs() []LimitDoc { return limitDocs }

// Get returns the limit with a name, or 0 for an unknown name.
func (l *Limits) Get(name string) int {
	for _, d := range limitDocs {
		if d.Name == name {
			return *d.of(l)
		}
	}
	return 0
}

// Set changes the limit with a name. It returns an error for an unknown name or a value below 1.
func (l *Limits) Set(name string, value int) error {
	for _, d := range limitDocs {
		if d.Name != name {
			continue
		}
		if value < 1 {
			return fmt.Errorf("limit %s: %d is not at least 1", name, value)
		}
		*d.of(l) = value
		return nil
	}
	return fmt.Errorf("%q is not the name of a limit", name)
}

// exceeds returns the text of a Problem about a limit. It names the flag, so that users know how to raise the limit.
func exceeds(name string, limit int, consequence string) string {
	return fmt.Sprintf("exceeds the limit %s=%d, so %s (--limit)", name, limit, consequence)
}

// usage counts the parts of a policy against its limits, while the policy is compiled.
// A policy that exceeds a limit keeps the parts before the excess.
type usage struct {
	limits                                           *Limits
	rules, peers, blocks, ports, expressions, labels int
	clusterPeers                                     int
	reported                                         map[string]bool // names of limits that have a Problem already
}

// newUsage returns a usage that has counted nothing.
func newUsage(l *Limits) *usage { return &usage{limits: l, reported: map[string]bool{}} }

// items returns the size of the policy: the number of its parts that take memory.
func (u *usage) items() int { return u.rules + u.peers + u.blocks + u.ports + u.expressions + u.labels }

// takeRule counts a rule, and reports whether the limit admits it. takePeer, takeBlocks and takePort do the same for their items.
// The first item over a limit becomes a Problem.
func (u *usage) takeRule(field string, ps *Problems) bool {
	return u.take(&u.rules, 1, "policy-rules", u.limits.PolicyRules, field, "this rule and all later ones allow nothing", ps)
}

// takePeer counts a peer.
func (u *usage) takePeer(field string, ps *Problems) bool {
	return u.take(&u.peers, 1, "policy-peers", u.limits.PolicyPeers, field, "this peer and all later ones allow nobody", ps)
}

// takeBlocks counts a CIDR and its excepts.
func (u *usage) takeBlocks(n int, field string, ps *Problems) bool {
	return u.take(&u.blocks, n, "policy-blocks", u.limits.PolicyBlocks, field, "this block and all later ones allow nobody", ps)
}

// takePort counts a port.
func (u *usage) takePort(field string, ps *Problems) bool {
	return u.take(&u.ports, 1, "policy-ports", u.limits.PolicyPorts, field, "this port and all later ones allow nothing", ps)
}

// take counts n items. After an item that does not fit, the count stays above the limit, so that no later item fits either.
// reported keeps a limit from being reported for each item.
func (u *usage) take(count *int, n int, name string, limit int, field, consequence string, ps *Problems) bool {
	if *count <= limit {
		*count += n
	}
	if *count <= limit {
		return true
	}
	if !u.reported[name] {
		u.reported[name] = true
		ps.Add(field, "%s", exceeds(name, limit, consequence))
	}
	return false
}
