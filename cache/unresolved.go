package cache

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// Unresolved is a policy with names of ports that nobody has, so that they allow nothing.
type Unresolved struct {
	Policy   Key
	UID      types.UID
	Problems []Problem
}

// namedPortOf is a name in a rule of a policy.
type namedPortOf struct {
	policy    *policy
	direction direction
	rule      int
	name      portName
}

// Unresolved returns the policies that isolate a local pod and name ports that nobody has now: in ingress no local pod
// that the policy isolates, in egress no peer of the rule. It looks at each local pod, and at peers where a rule has
// several names.
func (c *Cache) Unresolved() []Unresolved {
	c.mu.Lock()
	defer c.mu.Unlock()
	has := map[namedPortOf]bool{}
	for _, t := range c.targets {
		for _, d := range directions {
			for _, g := range c.guards(t, d) {
				for _, p := range g.policies {
					c.resolveNames(has, t, p, p.sections[d])
				}
			}
		}
	}
	byPolicy := map[*policy][]Problem{}
	for n, resolved := range has {
		if !resolved {
			byPolicy[n.policy] = append(byPolicy[n.policy], n.problem())
		}
	}
	var out []Unresolved
	for p, problems := range byPolicy {
		slices.SortFunc(problems, func(a, b Problem) int { return strings.Compare(a.String(), b.String()) })
		out = append(out, Unresolved{Policy: p.key, UID: p.remarks.uid, Problems: problems})
	}
	slices.SortFunc(out, func(a, b Unresolved) int { return compareKeys(a.Policy, b.Policy) })
	return out
}

func (c *Cache) resolveNames(has map[namedPortOf]bool, t *target, p *policy, s *section) {
	for _, r := range s.rules {
		for _, name := range r.names {
			n := namedPortOf{p, s.direction, r.index, name}
			switch {
			case has[n]:
			case s.direction == ingress:
				has[n] = hasNamed(t.pod.ports, name)
			default:
				has[n] = r.named != nil && c.peerHasNamed(r.named, name)
			}
		}
	}
}

func hasNamed(ports []namedPort, name portName) bool {
	return slices.ContainsFunc(ports, func(p namedPort) bool { return p.portName == name })
}

// peerHasNamed says whether any pod of a group has a port of the name, on the group's networks.
func (c *Cache) peerHasNamed(spec *groupSpec, name portName) bool {
	user := &policyChain{}
	g := c.acquireGroup(spec, user)
	defer c.releaseGroup(g, user)
	switch {
	case g.endpoints.IsEmpty():
		return false
	case len(spec.names) == 1:
		return true
	}
	found := false
	for _, e := range g.entries {
		e.eachPod(func(p *pod) { found = found || hasNamed(p.ports, name) })
	}
	return found
}

func (n namedPortOf) problem() Problem {
	who := "no pod on this node that the policy isolates"
	if n.direction == egress {
		who = "no peer of the rule"
	}
	return Problem{
		Field:   fmt.Sprintf("spec.%s[%d].ports", n.direction, n.rule),
		Message: fmt.Sprintf("%s has a port %q of %s, so the name allows nothing", who, n.name.name, protocolName(n.name.proto)),
	}
}
