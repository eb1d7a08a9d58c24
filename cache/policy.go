package cache

import (
	"fmt"
	"slices"
	"strings"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	policyForAnnotation = "k8s.v1.cni.cncf.io/policy-for"
	policyForField      = "metadata.annotations[" + policyForAnnotation + "]"
)

// policy is a compiled policy.
type policy struct {
	key         Key
	pods        *selector
	networkKeys []Key // sorted
	sections    [len(directions)]*section

	networks []*network // once installed
	anchor   anchor

	remarks remarks // of the newest version that means this
}

// remarks are what versions of a policy that mean the same can differ in, for who explains it.
type remarks struct {
	problems problems
	noTypes  bool // policyTypes is absent
	uid      types.UID
}

// UpsertPolicy takes a policy as it is now.
func (c *Cache) UpsertPolicy(obj *mnpv1.MultiNetworkPolicy) []Problem {
	next, ps := compilePolicy(obj)
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.policies[next.key]; old == nil || !old.equal(next) {
		c.replacePolicy(old, next)
	} else {
		old.remarks = next.remarks
	}
	return ps
}

// DeletePolicy says that there is no such policy.
func (c *Cache) DeletePolicy(key Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.policies[key]; old != nil {
		c.replacePolicy(old, nil)
	}
}

// replacePolicy puts one version in the place of another, either of them nil for none, and marks the local pods that
// either one selects.
func (c *Cache) replacePolicy(old, next *policy) {
	if next != nil {
		next.keepSections(old)
		c.install(next)
	}
	for _, t := range c.targets {
		was := old != nil && slices.Contains(t.selected, old)
		is := next != nil && next.selects(t.pod)
		if was {
			t.selected = slices.DeleteFunc(t.selected, func(p *policy) bool { return p == old })
		}
		if is {
			t.selected = append(t.selected, next)
			slices.SortFunc(t.selected, comparePolicies)
		}
		if was || is {
			c.markStale(t)
		}
	}
	if old != nil {
		c.uninstall(old, next != nil)
	}
}

func (c *Cache) install(p *policy) {
	c.policies[p.key] = p
	p.networks = c.acquireNetworks(p.networkKeys)
	p.anchor = c.namespace(p.key.Namespace).policies.add(p.pods, p)
}

func (c *Cache) uninstall(p *policy, replaced bool) {
	if !replaced {
		delete(c.policies, p.key)
	}
	ns := c.namespace(p.key.Namespace)
	ns.policies.remove(p.anchor, p)
	c.dropNamespace(ns)
	c.releaseNetworks(p.networks)
}

func comparePolicies(a, b *policy) int { return compareKeys(a.key, b.key) }

// equal says whether two versions mean the same.
func (p *policy) equal(q *policy) bool {
	return p.pods.text == q.pods.text && slices.Equal(p.networkKeys, q.networkKeys) &&
		slices.EqualFunc(p.sections[:], q.sections[:], (*section).equal)
}

func (s *section) equal(t *section) bool {
	if s == nil || t == nil {
		return s == t
	}
	return s.text == t.text
}

// keepSections takes over what the version before has the same, and its chains with it.
func (p *policy) keepSections(old *policy) {
	if old == nil {
		return
	}
	for d, s := range p.sections {
		if s.equal(old.sections[d]) {
			p.sections[d] = old.sections[d]
		}
	}
}

// selects says whether the policy selects a pod of any namespace on any of its networks.
func (p *policy) selects(pod *pod) bool {
	return p.key.Namespace == pod.key.Namespace && p.isOn(pod) && p.pods.matches(&pod.labels)
}

func (p *policy) isOn(pod *pod) bool { return slices.ContainsFunc(p.networks, pod.isOn) }

// compilePolicy reads a policy.
func compilePolicy(obj *mnpv1.MultiNetworkPolicy) (*policy, problems) {
	var ps problems
	p := &policy{key: Key{Namespace: obj.Namespace, Name: obj.Name}}
	p.networkKeys = parsePolicyFor(obj.Namespace, obj.Annotations, &ps)
	var err error
	if p.pods, err = newSelector(&obj.Spec.PodSelector); err != nil {
		// Which pods it is to isolate is not known. To isolate none would leave open what somebody meant to close,
		// so it isolates them all. What its rules, and other policies, allow still passes.
		ps.add("spec.podSelector", "cannot be understood, so the policy isolates every pod of its namespace: %v", err)
		p.pods = everything()
	}
	isolates := isolatedDirections(&obj.Spec, &ps)
	for _, d := range directions {
		s := compileSection(p.key, p.networkKeys, d, sourcesOf(&obj.Spec, d), &ps)
		if isolates[d] {
			p.sections[d] = s
		}
	}
	p.remarks = remarks{problems: ps, noTypes: len(obj.Spec.PolicyTypes) == 0, uid: obj.UID}
	return p, ps
}

// isolatedDirections reads policyTypes. One that is not known may stand for either direction, so it isolates both.
func isolatedDirections(spec *mnpv1.MultiNetworkPolicySpec, ps *problems) (isolates [len(directions)]bool) {
	for i, t := range spec.PolicyTypes {
		switch t {
		case mnpv1.PolicyTypeIngress:
			isolates[ingress] = true
		case mnpv1.PolicyTypeEgress:
			isolates[egress] = true
		default:
			ps.add(fmt.Sprintf("spec.policyTypes[%d]", i), "%q is neither Ingress nor Egress, so the policy isolates both ways", t)
			isolates[ingress], isolates[egress] = true, true
		}
	}
	if len(spec.PolicyTypes) == 0 {
		isolates[ingress], isolates[egress] = true, len(spec.Egress) > 0
	}
	return isolates
}

// parsePolicyFor reads the networks that a policy is for, sorted.
func parsePolicyFor(namespace string, annotations map[string]string, ps *problems) []Key {
	value, ok := annotations[policyForAnnotation]
	if !ok {
		ps.add(policyForField, "is missing, so the policy selects nothing: it says which networks the policy is for")
		return nil
	}
	var keys []Key
	for _, s := range strings.Split(value, ",") {
		s = strings.TrimSpace(s)
		key, valid := parseNetworkName(s, namespace)
		if !valid {
			ps.add(policyForField, "%q is not the name of a network", s)
			continue
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		ps.add(policyForField, "names no network, so the policy selects nothing")
	}
	slices.SortFunc(keys, compareKeys)
	return slices.Compact(keys)
}
