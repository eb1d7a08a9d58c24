package cache

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// Shortfall is what a valid policy does not do, for one reason.
type Shortfall struct {
	Policy   Key
	UID      types.UID
	Reason   string // as of an Event
	Problems []Problem
}

// The reasons: a name of a port that nobody has, so that it allows nothing; and a network whose interfaces are not
// isolated, since its plugin type is none of those that are.
const (
	UnresolvedNamedPort      = "UnresolvedNamedPort"
	UnsupportedNetworkPlugin = "UnsupportedNetworkPlugin"
)

// namedPortOf is a name in a rule of a policy.
type namedPortOf struct {
	policy    *policy
	direction direction
	rule      int
	name      portName
}

// shortfallOf is a policy and a reason.
type shortfallOf struct {
	policy *policy
	reason string
}

// Shortfalls returns what policies that select a local pod do not do now. It looks at each local pod, and at peers where a
// rule has several names.
func (c *Cache) Shortfalls() []Shortfall {
	c.mu.Lock()
	defer c.mu.Unlock()
	has := map[namedPortOf]bool{}
	found := map[shortfallOf][]Problem{}
	for _, t := range c.targets {
		for _, d := range directions {
			for _, g := range c.guards(t, d) {
				for _, p := range g.policies {
					c.resolveNames(has, t, p, p.sections[d])
				}
			}
		}
		c.eachUnsupported(t, func(p *policy, n *network) {
			key, problem := shortfallOf{p, UnsupportedNetworkPlugin}, n.unsupported()
			if !slices.Contains(found[key], problem) {
				found[key] = append(found[key], problem)
			}
		})
	}
	for n, resolved := range has {
		if !resolved {
			key := shortfallOf{n.policy, UnresolvedNamedPort}
			found[key] = append(found[key], n.problem())
		}
	}
	var out []Shortfall
	for of, problems := range found {
		slices.SortFunc(problems, func(a, b Problem) int { return strings.Compare(a.String(), b.String()) })
		out = append(out, Shortfall{Policy: of.policy.key, UID: of.policy.remarks.uid, Reason: of.reason, Problems: problems})
	}
	slices.SortFunc(out, func(a, b Shortfall) int {
		return cmp.Or(compareKeys(a.Policy, b.Policy), strings.Compare(a.Reason, b.Reason))
	})
	return out
}

// eachUnsupported calls f with the policies that select a pod on a network that is not isolated.
func (c *Cache) eachUnsupported(t *target, f func(*policy, *network)) {
	for _, a := range t.pod.attachments {
		if c.isolates(a.network) {
			continue
		}
		for _, p := range t.selected {
			if slices.Contains(p.networks, a.network) {
				f(p, a.network)
			}
		}
	}
}

func (n *network) unsupported() Problem {
	return Problem{
		Field: policyForField,
		Message: fmt.Sprintf("network %s has the plugin type %q, which is none of --network-plugins, so its interfaces are not isolated",
			n.key, n.pluginType),
	}
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
		c.eachPod(e, func(p *pod) { found = found || hasNamed(p.ports, name) })
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
