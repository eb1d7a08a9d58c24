package cache

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
)

// explainPolicy says what a policy of the pod's namespace does about a packet. Whether it isolates is what the guard of
// the interface says; here is only why not.
func (c *Cache) explainPolicy(pod *pod, q Query, iface string, p *policy, isolates bool) PolicyExplanation {
	out := PolicyExplanation{Policy: p.key.String(), Isolates: isolates, Problems: p.problemsOf(q.Direction)}
	if !isolates {
		out.Reason = c.whyNotIsolated(pod, q.Direction, iface, p)
		return out
	}
	s := p.sections[q.Direction]
	for _, r := range s.rules {
		out.Rules = append(out.Rules, c.explainRule(pod, q, s, r))
	}
	for _, index := range p.leftOut(s) {
		out.Rules = append(out.Rules, RuleExplanation{
			Rule: ruleName(s.direction, index), Reason: "allows nobody: all of its peers are invalid",
		})
	}
	slices.SortFunc(out.Rules, func(a, b RuleExplanation) int { // by index: 9 before 10
		return cmp.Or(cmp.Compare(len(a.Rule), len(b.Rule)), cmp.Compare(a.Rule, b.Rule))
	})
	return out
}

func ruleName(d direction, index int) string { return fmt.Sprintf("%s[%d]", d, index) }

// whyNotIsolated says why a policy of the pod's namespace does not isolate an interface of it in a direction.
func (c *Cache) whyNotIsolated(pod *pod, d direction, iface string, p *policy) string {
	var shared []*network
	for _, a := range pod.attachments {
		if a.iface == iface && slices.Contains(p.networks, a.network) {
			shared = append(shared, a.network)
		}
	}
	switch {
	case len(p.networks) == 0:
		return "is for no network"
	case len(shared) == 0:
		return "is for other networks: " + networkNames(p.networks)
	case !p.pods.matches(&pod.labels):
		return "does not select the pod: " + p.pods.whyNot(&pod.labels)
	case p.sections[d] == nil && p.remarks.noTypes:
		return "has no policyTypes and no egress rules, so it is about Ingress alone"
	case p.sections[d] == nil:
		return "policyTypes do not include " + strings.ToUpper(d.String()[:1]) + d.String()[1:]
	}
	// A network that is isolated would have made it a guard.
	n := shared[0]
	return fmt.Sprintf("is for %s, whose plugin type %s is none of --network-plugins", n.key, n.pluginType)
}

func networkNames(networks []*network) string {
	names := make([]string, 0, len(networks))
	for _, n := range networks {
		names = append(names, n.key.String())
	}
	return strings.Join(names, ", ")
}

// whyNot says what the selector wants of labels that they do not have.
func (s *selector) whyNot(l *labelSet) string {
	requirements, selectable := s.match.Requirements()
	if !selectable {
		return "its podSelector selects nothing"
	}
	var wanted []string
	for _, r := range requirements {
		if !r.Matches(l) {
			wanted = append(wanted, whyNotMet(r, l))
		}
	}
	slices.Sort(wanted)
	return strings.Join(wanted, "; ")
}

func whyNotMet(r labels.Requirement, l *labelSet) string {
	text := "label " + new(selector).require(r) + " wanted"
	if value, has := l.Lookup(r.Key()); has {
		return text + ", the pod has " + r.Key() + "=" + value
	}
	return text + ", the pod has no " + r.Key()
}

// problemsOf returns what is wrong with the policy, but for the rules of the other direction.
func (p *policy) problemsOf(d direction) []string {
	var texts []string
	for _, problem := range p.remarks.problems {
		if !strings.HasPrefix(problem.Field, "spec."+(1-d).String()+"[") {
			texts = append(texts, problem.String())
		}
	}
	return texts
}

// leftOut returns the indexes of the rules of which nothing is left: each has a problem.
func (p *policy) leftOut(s *section) []int {
	var out []int
	for _, problem := range p.remarks.problems {
		var index int
		if _, err := fmt.Sscanf(problem.Field, "spec."+s.direction.String()+"[%d]", &index); err != nil {
			continue
		}
		if !slices.Contains(out, index) && !slices.ContainsFunc(s.rules, func(r rule) bool { return r.index == index }) {
			out = append(out, index)
		}
	}
	return out
}
