package cache

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// Shortfall is a part of a valid policy that has no effect, with the reason. Invalid fields are Problems of the policy
// instead.
type Shortfall struct {
	Policy   Key
	UID      types.UID
	Reason   policy.Reason // the reason of the Event
	Problems []policy.Problem
}

// shortfalls collects problems by policy and reason.
// Problems of a policy come from several pods.
type shortfalls map[shortfallKey][]policy.Problem

// shortfallKey: an Event has a single reason, so each policy has a list for each reason.
type shortfallKey struct {
	policy *policy.Policy
	reason policy.Reason
}

// add adds a problem, once, up to policy.MaxProblems for a policy and reason.
func (s shortfalls) add(p *policy.Policy, reason policy.Reason, problem policy.Problem) {
	key := shortfallKey{p, reason}
	if len(s[key]) < policy.MaxProblems && !slices.Contains(s[key], problem) {
		s[key] = append(s[key], problem)
	}
}

// portUse is the use of a name of a port in a rule of a policy.
// It identifies a name across the pods that the policy selects.
type portUse struct {
	policy    *policy.Policy
	direction engine.Direction
	rule      int
	name      policy.PortName
}

// Shortfalls returns the parts of policies that have no effect, sorted: networks that do not exist, of all policies;
// and for policies that select a local pod, the parts that the last plan of the pod leaves out. It holds the lock only
// briefly. The caller may call it at any interval; it changes nothing.
func (c *Cache) Shortfalls() []Shortfall {
	c.lock()
	// The lists are copied, because the lock is not held during the whole walk.
	targets := make([]*target, 0, len(c.targets))
	for _, t := range c.targets {
		targets = append(targets, t)
	}
	policies := make([]*installed, 0, len(c.policies))
	for _, p := range c.policies {
		policies = append(policies, p)
	}
	c.unlock()
	found, resolved := shortfalls{}, map[portUse]bool{}
	c.addUndefined(policies, found)
	for _, t := range targets {
		c.lock()
		p, ports := t.plan, t.pod.state.ports
		// The closed plan is in force in place of the other plan.
		if t.closed != nil {
			p = t.closed
		}
		c.unlock()
		p.addShortfalls(t.pod.key, c.options.Bridge, found)
		// A name has an effect if it resolves in any pod that the policy selects.
		if !p.byName {
			continue
		}
		for _, n := range p.namedPorts(ports) {
			resolved[n.portUse] = resolved[n.portUse] || n.resolves()
		}
	}
	// Only after all pods, it is known that no pod has the port.
	for use, ok := range resolved {
		if !ok {
			found.add(use.policy, policy.UnresolvedNamedPort, use.problem())
		}
	}
	return found.list()
}

// list returns the shortfalls sorted by policy and reason.
// The same input gives the same list, so a caller can compare it with the last.
func (s shortfalls) list() []Shortfall {
	var out []Shortfall
	for key, problems := range s {
		slices.SortFunc(problems, func(a, b policy.Problem) int { return strings.Compare(a.String(), b.String()) })
		out = append(out, Shortfall{Policy: key.policy.Key, UID: key.policy.UID, Reason: key.reason, Problems: problems})
	}
	slices.SortFunc(out, func(a, b Shortfall) int {
		return cmp.Or(policy.CompareKeys(a.Policy, b.Policy), cmp.Compare(a.Reason, b.Reason))
	})
	return out
}

// addUndefined adds the networks that have neither a definition nor a pod. It holds the lock for a single policy at a
// time.
func (c *Cache) addUndefined(policies []*installed, found shortfalls) {
	for _, p := range policies {
		c.lock()
		for _, key := range p.Networks {
			if c.isUndefined(key) {
				found.add(p.Policy, policy.UndefinedNetwork, policy.Problem{Field: policy.ForField, Message: undefinedMessage(key)})
			}
		}
		c.unlock()
	}
}

// isUndefined reports whether a network does not exist. A network without a definition exists if a pod is attached to it.
// The caller holds the lock.
func (c *Cache) isUndefined(key Key) bool {
	n := c.networks[key]
	return n == nil || !n.defined && len(n.pods) == 0
}

// undefinedMessage says that a policy has no effect on a network that does not exist.
func undefinedMessage(key Key) string {
	return fmt.Sprintf("no NetworkAttachmentDefinition %s exists and no pod is attached to such a network, so the policy has no effect there", key)
}

// addShortfalls adds the shortfalls of a pod's plan. pod is for messages.
func (p *plan) addShortfalls(pod Key, bridge BridgeSupport, found shortfalls) {
	for _, u := range p.unsupported {
		found.add(u.policy, policy.UnsupportedNetworkPlugin, policy.Problem{Field: policy.ForField, Message: u.message()})
	}
	for _, u := range p.unenforced {
		found.add(u.policy, policy.NotEnforceable, u.problem())
	}
	if message := bridge.Shortfall(); p.hasBridge && message != "" {
		for _, chosen := range p.chosen {
			found.add(chosen.Policy, policy.BridgeNotEnforced, policy.Problem{Field: "pod " + pod.String(), Message: message})
		}
	}
	for _, chosen := range p.chosen {
		if chosen.audited {
			found.add(chosen.Policy, policy.InAuditMode, auditProblem(chosen.Policy))
		}
	}
	for _, problem := range p.problems {
		found.add(problem.Policy, policy.PodLimitExceeded, policy.Problem{Field: "pod " + pod.String(), Message: problem.Message})
	}
}

// auditProblem returns the Problem of a policy in audit mode.
func auditProblem(p *policy.Policy) policy.Problem {
	field := "spec" // by the flag --audit
	if p.Mode == policy.Audit {
		field = annotationField(policy.ModeAnnotation)
	}
	return policy.Problem{Field: field, Message: "the policy is in audit mode: packets that it would drop pass, and are counted and reported, " +
		"unless another policy drops them"}
}

// message says why the network is not isolated.
func (u unsupported) message() string {
	return fmt.Sprintf("network %s has the plugin type %s, which is none of --network-plugins, so its interfaces are not isolated",
		u.network, policy.Quote(u.pluginType))
}

// namedPort is the use of a name, with the places to look for the name: the ports of the pod, or a group.
type namedPort struct {
	portUse
	pod   []policy.NamedPort
	group *group // for egress; nil: no peer can have the port
}

// resolves reports whether the name stands for a port.
// The rules for ingress name ports of the isolated pod, and the rules for egress ports of the peers.
func (n namedPort) resolves() bool {
	if n.direction == engine.Ingress {
		return slices.ContainsFunc(n.pod, func(p policy.NamedPort) bool { return p.PortName == n.name })
	}
	return n.group != nil && n.group.hasName(n.name)
}

// hasName reports whether a pod in the group has a port of the name.
func (g *group) hasName(name policy.PortName) bool {
	g.sets(0) // applies the changes
	g.content.Lock()
	defer g.content.Unlock()
	return g.content.names[name] > 0
}

// namedPorts returns the uses of names of ports in the policies of a pod with these named ports.
// The order is that of the chains, then of the rules.
func (p *plan) namedPorts(ports []policy.NamedPort) []namedPort {
	policies := map[*policy.Section]*policy.Policy{}
	for _, chosen := range p.chosen {
		for _, s := range chosen.sections {
			policies[s] = chosen.Policy
		}
	}
	var out []namedPort
	for _, pc := range p.policyChains {
		s := pc.key.section
		groups := map[policy.Digest]*group{}
		for _, g := range pc.groups {
			groups[g.spec.Digest] = g
		}
		for i := range s.Rules {
			r := &s.Rules[i]
			for _, name := range r.Names {
				n := namedPort{portUse: portUse{policies[s], s.Direction, r.Index, name}, pod: ports}
				if r.Named != nil {
					n.group = groups[r.Named.Digest]
				}
				out = append(out, n)
			}
		}
	}
	return out
}

// problem returns the Problem of a name without effect.
func (u portUse) problem() policy.Problem {
	who := "no pod on this node that the policy isolates"
	if u.direction == engine.Egress {
		who = "no peer of the rule"
	}
	return policy.Problem{
		Field:   fmt.Sprintf("spec.%s[%d].ports", u.direction, u.rule),
		Message: fmt.Sprintf("%s has a port %q of %s, so the name allows nothing", who, u.name.Name, policy.ProtocolName(u.name.Proto)),
	}
}
