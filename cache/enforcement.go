package cache

import (
	"slices"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// Rules identifies the policies whose rules are in the tables of a Target. Equal values identify the same rules, apart from the
// members of groups. The zero value has no policies: the tables are in place of other tables, and allow nothing.
type Rules struct{ plan *plan }

// isEmpty reports whether no policy has rules in the tables.
func (r Rules) isEmpty() bool { return r.plan == nil || len(r.plan.chosen) == 0 }

// Acknowledged has the policies whose rules the kernel holds for a pod, each with a time. It never changes. A nil pointer has no
// policies.
type Acknowledged struct {
	sandbox string
	rules   Rules
	since   []time.Time // by the index of the policy in rules.plan.chosen
}

// Acknowledge returns the state after the kernel acknowledged the tables of the target. A policy keeps its time while its rules stay
// the same in the same sandbox; other policies get the time now. It returns nil if no policy has rules in the tables.
func (a *Acknowledged) Acknowledge(t *Target, now time.Time) *Acknowledged {
	if t.Rules.isEmpty() {
		return nil
	}
	if a != nil && a.sandbox == t.Sandbox.ID && a.rules == t.Rules {
		return a
	}
	next := &Acknowledged{t.Sandbox.ID, t.Rules, make([]time.Time, len(t.Rules.plan.chosen))}
	for i, p := range t.Rules.plan.chosen {
		if next.since[i] = a.of(p, t.Sandbox.ID); next.since[i].IsZero() {
			next.since[i] = now
		}
	}
	return next
}

// of returns the time of a policy with the same rules in the sandbox; zero: the kernel does not hold these rules.
func (a *Acknowledged) of(p *installed, sandbox string) time.Time {
	if a == nil || a.sandbox != sandbox {
		return time.Time{}
	}
	i, found := slices.BinarySearchFunc(a.rules.plan.chosen, p, comparePolicies)
	// Equal sections have the same pointer, see keepSections.
	if !found || a.rules.plan.chosen[i].sections != p.sections || a.rules.plan.chosen[i].audited != p.audited {
		return time.Time{}
	}
	return a.since[i]
}

// isCurrent reports whether the kernel holds the chains of a plan in the sandbox. A new plan with the same chains is not applied
// again.
func (a *Acknowledged) isCurrent(p *plan, sandbox string) bool {
	if a == nil || a.sandbox != sandbox {
		return false
	}
	for f, chains := range p.chains {
		if !slices.Equal(chains, a.rules.plan.chains[f]) {
			return false
		}
	}
	return true
}

// Gap is a reason why a policy is not enforced in a pod, or not on one of its interfaces.
type Gap struct {
	Reason    string // one of the constants below
	Interface string // empty: all interfaces of the pod
	Message   string
}

// Reasons of a Gap. Reasons that the metric pods_not_enforced has too have the same text there.
const (
	GapNoSandbox         = "no_sandbox"         // the agent does not know where the pod runs
	GapUnreadableStatus  = "unreadable_status"  // the interfaces of the pod are unknown
	GapUnsupportedPlugin = "unsupported_plugin" // the plugin type of the network is not in --network-plugins
	GapNotEnforceable    = "not_enforceable"    // the kernel hides packets of the interface from rules
	GapBridge            = "bridge"             // the kernel cannot enforce the policy in the bridge of the pod
	GapLimitExceeded     = "limit_exceeded"     // a part of the policy, or all of it, isolates and allows nothing
	GapWaiting           = "waiting"            // the kernel has not acknowledged the tables with the policy yet
	GapUndefinedNetwork  = "undefined_network"  // the pod is on no network of the policy, and one of these does not exist
	GapNoNetwork         = "no_network"         // the pod is on no network of the policy, so there is nothing to enforce
	GapAuditMode         = "audit_mode"         // the policy is in audit mode, so it isolates nothing
	GapElsewhere         = "enforced_elsewhere" // another implementation enforces policies on the interface
)

// PolicyEnforcement is the state of a policy in a pod that its podSelector selects.
type PolicyEnforcement struct {
	Policy *policy.Policy
	Since  time.Time // when the kernel acknowledged the rules as they are now; zero: not yet
	Gaps   []Gap     // nil: the policy is enforced
}

// enforcementInputs are the parts of a local pod that its state of enforcement depends on, copied under the lock.
type enforcementInputs struct {
	state        *podState
	problems     []policy.Problem
	places       []place
	policies     []*installed
	plan, closed *plan
	stale        bool
	bridge       bool
	sandbox      Sandbox
}

// LocalPods returns the local pods of a namespace, or of all namespaces if it is empty, sorted.
func (c *Cache) LocalPods(namespace string) []PodID {
	var pods []PodID
	c.lock()
	for id := range c.targets {
		if namespace == "" || id.Namespace == namespace {
			pods = append(pods, id)
		}
	}
	c.unlock()
	slices.SortFunc(pods, comparePodIDs)
	return pods
}

// Enforcement returns the policies whose podSelector selects a local pod, each with its state, sorted. name limits them to a
// policy; empty: all. It returns false for a pod that is not local. It makes no plan and changes nothing, and holds the lock only
// to copy the state of this pod and the list of the policies of the namespace.
func (c *Cache) Enforcement(id PodID, name string, a *Acknowledged) ([]PolicyEnforcement, bool) {
	in, ok := c.enforcementInputs(id, name)
	if !ok {
		return nil, false
	}
	var out []PolicyEnforcement
	for _, p := range in.policies {
		if in.state.cutLabels || p.Pods.Matches(&in.state.labels) {
			out = append(out, PolicyEnforcement{Policy: p.Policy, Since: a.of(p, in.sandbox.ID), Gaps: c.gaps(&in, p, a)})
		}
	}
	return out, true
}

func (c *Cache) enforcementInputs(id PodID, name string) (in enforcementInputs, ok bool) {
	c.lock()
	defer c.unlock()
	t := c.targets[id]
	if t == nil {
		return in, false
	}
	in = enforcementInputs{
		state: t.pod.state, problems: t.pod.local.problems, places: c.places(t, t.pod.state.attachments), plan: t.plan, closed: t.closed,
		stale: t.stale, bridge: t.hasBridge(), sandbox: c.sandboxOf(t.pod),
	}
	if name == "" {
		in.policies = slices.Clone(t.pod.namespace.ordered)
	} else if p := c.policies[Key{Namespace: id.Namespace, Name: name}]; p != nil {
		in.policies = []*installed{p}
	}
	return in, true
}

// gaps returns the reasons why a policy that selects the pod is not enforced there.
func (c *Cache) gaps(in *enforcementInputs, p *installed, a *Acknowledged) (gaps []Gap) {
	if !in.state.known {
		return []Gap{{Reason: GapUnreadableStatus, Message: "the interfaces of the pod are unknown" + firstProblem(in.problems)}}
	}
	isolates, isFor := in.state.overflow && (p.AllNetworks || len(p.Networks) > 0), false
	for _, at := range in.places {
		if !p.IsFor(at.network) {
			continue
		}
		isFor = true
		isolates = isolates || at.isolated
		if gap, ok := c.gapOf(at); ok {
			gaps = append(gaps, gap)
		}
	}
	switch {
	case !isFor && !isolates:
		return []Gap{c.offNetwork(p)}
	case !isolates:
		return gaps
	case p.audited:
		return []Gap{{Reason: GapAuditMode, Message: "the policy is in audit mode: it drops nothing"}}
	case in.sandbox == (Sandbox{}):
		return append(gaps, Gap{Reason: GapNoSandbox, Message: "the container runtime has no sandbox of the pod, or it does not run yet"})
	}
	if message := c.options.Bridge.Shortfall(); in.bridge && message != "" {
		gaps = append(gaps, Gap{Reason: GapBridge, Message: message})
	}
	switch message := in.limit(p); {
	case message != "":
		gaps = append(gaps, Gap{Reason: GapLimitExceeded, Message: message})
	case in.stale || !a.isCurrent(in.plan, in.sandbox.ID) || a.of(p, in.sandbox.ID).IsZero():
		gaps = append(gaps, Gap{Reason: GapWaiting, Message: "the kernel has not acknowledged the table with the policy yet"})
	}
	return gaps
}

// offNetwork returns the gap of a pod that is on no network of the policy. A network that does not exist is most often a wrong name, so
// the pod may be meant.
func (c *Cache) offNetwork(p *installed) Gap {
	if len(p.Networks) == 0 {
		return Gap{Reason: GapUndefinedNetwork, Message: "the policy names no network" + firstProblem(p.Problems)}
	}
	c.lock()
	defer c.unlock()
	for _, key := range p.Networks {
		if c.isUndefined(key) {
			return Gap{Reason: GapUndefinedNetwork, Message: undefinedMessage(key)}
		}
	}
	return Gap{Reason: GapNoNetwork, Message: "the pod is on no network of the policy"}
}

// gapOf returns the gap of an interface on a network of the policy, if it has any.
func (c *Cache) gapOf(at place) (Gap, bool) {
	switch {
	case at.elsewhere && !at.isolated:
		return Gap{GapElsewhere, at.iface, c.options.EnforcedBy[at.pluginType] + " enforces policies on network " + at.network.String()}, true
	case !at.isolated:
		return Gap{GapUnsupportedPlugin, at.iface, unsupported{network: at.network, pluginType: at.pluginType}.message()}, true
	case at.hidden.why != "":
		return Gap{GapNotEnforceable, at.iface, at.hidden.why}, true
	}
	return Gap{}, false
}

// limit returns the reason why a part of the policy allows nothing in the pod because of a limit; empty: none.
func (in *enforcementInputs) limit(p *installed) string {
	if in.closed != nil {
		if len(in.closed.problems) > 0 {
			return in.closed.problems[0].Message
		}
		return "the table of the pod exceeds a limit of memory, so the pod is isolated and its policies allow nothing"
	}
	if in.state.overflow {
		return "the pod has more interfaces than the limit pod-interfaces"
	}
	if p.OverLimit && len(p.Problems) > 0 {
		return p.Problems[0].String()
	}
	// A stale plan says nothing about the policies of now.
	if in.stale || in.plan == noPlan || in.plan.applies(p) {
		return ""
	}
	for _, problem := range in.plan.problems {
		if problem.Policy.Key == p.Key {
			return problem.Message
		}
	}
	if in.plan.limited == 0 {
		return "" // the policy is newer than the plan
	}
	return "the table of the pod would exceed a limit, so the policy isolates the pod and allows nothing there"
}

// firstProblem returns the first problem as the end of a message.
func firstProblem(problems []policy.Problem) string {
	if len(problems) == 0 {
		return ""
	}
	return ": " + problems[0].String()
}
