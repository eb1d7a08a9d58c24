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

// Shortfall is a part of a valid policy that has no effect, for one reason.
type Shortfall struct {
	Policy   Key
	UID      types.UID
	Reason   string // as of an Event
	Problems []policy.Problem
}

// Reasons of a Shortfall.
const (
	UnresolvedNamedPort      = "UnresolvedNamedPort"      // nobody has a port of the name, so the name allows nothing
	UnsupportedNetworkPlugin = "UnsupportedNetworkPlugin" // interfaces of the network are not isolated
	PodLimitExceeded         = "PodLimitExceeded"         // the policy allows nothing in a pod that has too many rules
)

// shortfalls collects problems by policy and reason.
type shortfalls map[shortfallKey][]policy.Problem

type shortfallKey struct {
	policy *policy.Policy
	reason string
}

func (s shortfalls) add(p *policy.Policy, reason string, problem policy.Problem) {
	key := shortfallKey{p, reason}
	if len(s[key]) < policy.MaxProblems && !slices.Contains(s[key], problem) {
		s[key] = append(s[key], problem)
	}
}

// portUse is a name of a port in a rule of a policy.
type portUse struct {
	policy    *policy.Policy
	direction engine.Direction
	rule      int
	name      policy.PortName
}

// Shortfalls returns the parts of policies that select a local pod and have no effect now. It takes the lock for one pod
// after another.
func (c *Cache) Shortfalls() []Shortfall {
	c.lock()
	targets := make([]*target, 0, len(c.targets))
	for _, t := range c.targets {
		targets = append(targets, t)
	}
	c.unlock()
	found, resolved := shortfalls{}, map[portUse]bool{}
	for _, t := range targets {
		c.lock()
		c.addShortfalls(t, found)
		names := c.namedPorts(t)
		c.unlock()
		for _, n := range names {
			resolved[n.portUse] = resolved[n.portUse] || n.resolves()
		}
	}
	for use, ok := range resolved {
		if !ok {
			found.add(use.policy, UnresolvedNamedPort, use.problem())
		}
	}
	return found.list()
}

func (s shortfalls) list() []Shortfall {
	var out []Shortfall
	for key, problems := range s {
		slices.SortFunc(problems, func(a, b policy.Problem) int { return strings.Compare(a.String(), b.String()) })
		out = append(out, Shortfall{Policy: key.policy.Key, UID: key.policy.UID, Reason: key.reason, Problems: problems})
	}
	slices.SortFunc(out, func(a, b Shortfall) int {
		return cmp.Or(policy.CompareKeys(a.Policy, b.Policy), strings.Compare(a.Reason, b.Reason))
	})
	return out
}

func (c *Cache) addShortfalls(t *target, found shortfalls) {
	c.eachUnsupported(t, func(p *installed, n *network) {
		found.add(p.Policy, UnsupportedNetworkPlugin, policy.Problem{
			Field: policy.ForField,
			Message: fmt.Sprintf("network %s has the plugin type %s, which is none of --network-plugins, so its interfaces are not isolated",
				n.key, policy.Quote(n.pluginType)),
		})
	})
	for _, p := range t.plan.problems {
		found.add(p.Policy, PodLimitExceeded, policy.Problem{Field: "pod " + t.pod.key.String(), Message: p.Message})
	}
}

// eachUnsupported calls f with the policies that select a pod on a network that is not isolated.
func (c *Cache) eachUnsupported(t *target, f func(*installed, *network)) {
	for _, a := range t.pod.state.attachments {
		if c.isolates(a.network) {
			continue
		}
		for _, p := range t.selected {
			if p.IsFor(a.network.key) {
				f(p, a.network)
			}
		}
	}
}

// namedPort is a use of a name, and where to look for it: in the ports of the pod, or in a group.
type namedPort struct {
	portUse
	pod   []policy.NamedPort
	group *group // egress; nil: no peer can have the port
}

// resolves reports whether the name stands for a port.
func (n namedPort) resolves() bool {
	if n.direction == engine.Ingress {
		return slices.ContainsFunc(n.pod, func(p policy.NamedPort) bool { return p.PortName == n.name })
	}
	return n.group != nil && n.group.hasName(n.name)
}

// hasName reports whether a pod in the group has a port of the name.
func (g *group) hasName(name policy.PortName) bool {
	g.set(0) // takes the changes in
	g.content.Lock()
	defer g.content.Unlock()
	return g.content.names[name] > 0
}

// namedPorts returns the uses of names in the policies of a pod that are in force.
func (c *Cache) namedPorts(t *target) []namedPort {
	policies := map[*policy.Section]*policy.Policy{}
	for _, p := range t.selected {
		for _, s := range p.sections {
			policies[s] = p.Policy
		}
	}
	var out []namedPort
	for _, pc := range t.plan.policyChains {
		s := pc.key.section
		p := policies[s]
		if p == nil {
			continue // replaced since the plan was made
		}
		groups := map[policy.Digest]*group{}
		for _, g := range pc.groups {
			groups[g.spec.Digest] = g
		}
		for i := range s.Rules {
			r := &s.Rules[i]
			for _, name := range r.Names {
				n := namedPort{portUse: portUse{p, s.Direction, r.Index, name}, pod: t.pod.state.ports}
				if r.Named != nil {
					n.group = groups[r.Named.Digest]
				}
				out = append(out, n)
			}
		}
	}
	return out
}

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
