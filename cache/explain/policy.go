package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// explainPolicy returns the effect of a policy of the pod's namespace on the packet. The isolation of the interface lists the
// policies that isolate it; explainPolicy gives the reason for each other policy.
// A policy that isolates without rules denies everything in the direction.
func (e *explainer) explainPolicy(iface string, p *policy.Policy, isolation cache.IsolationView) PolicyExplanation {
	d := e.query.Direction
	out := PolicyExplanation{
		Policy: p.Key.String(), Isolates: slices.Contains(isolation.Policies, p), Audited: p.IsAudited(e.settings.Audit), Problems: problemsOf(p, d),
	}
	if !out.Isolates {
		out.Reason = e.whyNotIsolated(iface, p)
		return out
	}
	for _, problem := range e.pod.Problems {
		if problem.Policy.Key == p.Key {
			out.Problems = append(out.Problems, problem.Message)
		}
	}
	// A policy that exceeds a limit of the pod isolates it without rules.
	if !slices.Contains(isolation.Effective, p) {
		return out
	}
	for i := range p.Sections[d].Rules {
		out.Rules = append(out.Rules, e.explainRule(&p.Sections[d].Rules[i]))
	}
	return out
}

// ruleName returns the name of a rule as in comments of the table: "ingress[0]".
// index is the place of the rule in the policy, from 0.
func ruleName(d engine.Direction, index int) string { return fmt.Sprintf("%s[%d]", d, index) }

// whyNotIsolated returns the reason why a policy of the pod's namespace does not isolate an interface of the pod. The
// conditions are in the order in which a user would check them.
// It completes a sentence that starts with the name of the policy.
func (e *explainer) whyNotIsolated(iface string, p *policy.Policy) string {
	d := e.query.Direction
	var shared []cache.AttachmentView
	for _, a := range e.pod.Attachments {
		if a.Interface == iface && p.IsFor(a.Network) {
			shared = append(shared, a)
		}
	}
	switch {
	case len(p.Networks) == 0:
		return "is for no network"
	case len(shared) == 0:
		return "is for other networks: " + networkNames(p.Networks)
	case !p.Pods.Matches(&e.pod.Labels):
		return "does not select the pod: " + strings.Join(p.Pods.Unmet(&e.pod.Labels), "; ")
	case p.Sections[d] == nil && p.NoTypes:
		return "has no policyTypes and no egress rules, so it is about Ingress alone"
	case p.Sections[d] == nil:
		return "policyTypes do not include " + strings.ToUpper(d.String()[:1]) + d.String()[1:]
	}
	for _, a := range shared {
		if a.EnforcedBy != "" {
			return fmt.Sprintf("is for %s, whose policies %s enforces (plugin type %s)", a.Network, a.EnforcedBy, a.PluginType)
		}
	}
	// A network that is isolated would have isolated the interface.
	return fmt.Sprintf("is for %s, whose plugin type %s is none of --network-plugins", shared[0].Network, shared[0].PluginType)
}

// mostNames is the number of networks that an explanation names.
const mostNames = 10

// networkNames returns the names of the first networks, and the number of the others.
func networkNames(networks []cache.Key) string {
	names := make([]string, 0, mostNames)
	for _, n := range networks[:min(len(networks), mostNames)] {
		names = append(names, n.String())
	}
	text := strings.Join(names, ", ")
	if more := len(networks) - mostNames; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// problemsOf returns the problems of the policy, without those of the rules of the other direction.
// A problem of the policy as a whole concerns both directions.
func problemsOf(p *policy.Policy, d engine.Direction) []string {
	var texts []string
	for _, problem := range p.Problems {
		if !strings.HasPrefix(problem.Field, "spec."+d.Opposite().String()+"[") {
			texts = append(texts, problem.String())
		}
	}
	return texts
}
