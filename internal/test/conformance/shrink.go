package conformance

import (
	"encoding/json"
	"maps"
	"slices"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// Shrink returns a smaller case that still fails. It leaves out steps, events, parts of objects, outsiders and flags,
// one after another, until nothing can be left out or more returns false. A smaller case that is not sound is not
// tried, because its failure could be the case's own fault.
// The result fails too. more bounds the time: it returns false when the time is over.
func Shrink(c Case, fails func(Case) bool, more func() bool) Case {
	try := func(next Case) bool {
		if !more() || !isSound(next) || !fails(next) {
			return false
		}
		c = next
		return true
	}
	// A part that had to stay in one round may be left out in the next round, once other parts are gone.
	for again := true; again && more(); {
		again = false
		for _, smaller := range []func(Case) []func() Case{withoutEvents, withoutPoints, withSmallerObjects, withoutOutsiders, withoutFlags} {
			// The ways belong to the case that they were made from. After a success the case is smaller, so the ways
			// are made again.
			for i := 0; more(); {
				ways := smaller(c)
				if i >= len(ways) {
					break
				}
				if try(ways[i]()) {
					again = true
				} else {
					i++
				}
			}
		}
	}
	return c
}

// isSound reports whether a case has a defined outcome: no two hosts on a wire have the same address at the same time,
// and the Oracle knows no more than an agent can know.
func isSound(c Case) bool {
	state := oracle.State{}
	stopped, changed := false, false // changed: objects changed while no agent ran
	for _, s := range c.Steps {
		for _, e := range s.Events {
			state = e.applyTo(state)
			changed = changed || stopped && (e.Put != nil || e.Gone != nil)
			switch {
			case e.Stop:
				stopped, changed = true, false
			case e.Start && hasUnreadable(state), !hasOwnAddresses(c.Outsiders, state):
				return false
			case e.Start:
				stopped, changed = false, false
			}
		}
		// While no agent runs, the rules stay as they were, and the Oracle judges by the old state. But the kernel has
		// the interfaces of the new state, so nothing must be compared.
		if changed {
			return false
		}
	}
	return true
}

// hasUnreadable reports whether any pod has annotations that cannot be read. An agent that starts cannot know the
// interfaces of such a pod.
func hasUnreadable(state oracle.State) bool {
	return slices.ContainsFunc(oracle.ObjectsOf[*corev1.Pod](state), func(p *corev1.Pod) bool {
		return !oracle.IsReadable(p)
	})
}

// hasOwnAddresses reports whether every address on a wire belongs to a single host.
func hasOwnAddresses(outsiders []Outsider, state oracle.State) bool {
	seen := map[spot]bool{}
	for _, o := range outsiders {
		seen[spot{o.Wire, o.Addr}] = true
	}
	for _, p := range oracle.ObjectsOf[*corev1.Pod](state) {
		for _, l := range linksOf(p) {
			for _, a := range l.Addrs {
				if seen[spot{l.Wire, a}] {
					return false
				}
				seen[spot{l.Wire, a}] = true
			}
		}
	}
	return true
}

// withoutPoints joins two steps: the agent settles between their events, but nothing is compared there.
func withoutPoints(c Case) []func() Case {
	var ways []func() Case
	for i := range len(c.Steps) - 1 {
		ways = append(ways, func() Case {
			next := withSteps(c)
			events := slices.Concat(next.Steps[i].Events, []Event{{Settle: true}}, next.Steps[i+1].Events)
			next.Steps[i+1].Events = events
			next.Steps = slices.Delete(next.Steps, i, i+1)
			return next
		})
	}
	return ways
}

// withoutEvents leaves out half of the events at first, then smaller parts, and single events at the end. Later events
// go first, because later events may depend on earlier events.
func withoutEvents(c Case) []func() Case {
	total := c.Size()
	var ways []func() Case
	for size := total / 2; size > 0; size /= 2 {
		for from := total - size; from >= 0; from -= size {
			ways = append(ways, func() Case { return dropEvents(c, from, from+size) })
		}
	}
	return ways
}

// dropEvents leaves out the events from (inclusive) to (exclusive), counted over all steps.
func dropEvents(c Case, from, to int) Case {
	next := withSteps(c)
	n := 0
	for i := range next.Steps {
		next.Steps[i].Events = slices.DeleteFunc(next.Steps[i].Events, func(e Event) bool {
			if e.Settle { // without the waits between events, an order of events may have another outcome
				return false
			}
			n++
			return n > from && n <= to
		})
		next.Steps[i].Events = slices.CompactFunc(next.Steps[i].Events, func(a, b Event) bool { return a.Settle && b.Settle })
	}
	return next
}

// withoutOutsiders leaves out all outsiders, or one of them.
func withoutOutsiders(c Case) []func() Case {
	if len(c.Outsiders) == 0 {
		return nil
	}
	ways := []func() Case{func() Case {
		next := c
		next.Outsiders = nil
		return next
	}}
	for i := range c.Outsiders {
		ways = append(ways, func() Case {
			next := c
			next.Outsiders = slices.Delete(slices.Clone(c.Outsiders), i, i+1)
			return next
		})
	}
	return ways
}

// withSmallerObjects leaves out a part of one object.
// Each way is tried by itself.
func withSmallerObjects(c Case) []func() Case {
	var ways []func() Case
	for i, s := range c.Steps {
		for j, e := range s.Events {
			if e.Put == nil {
				continue
			}
			for _, smaller := range smallerObjects(e.Put) {
				ways = append(ways, func() Case {
					next := withSteps(c)
					o := e.Put.DeepCopyObject().(oracle.Object)
					smaller(o)
					next.Steps[i].Events[j].Put = o
					return next
				})
			}
		}
	}
	return ways
}

// withSteps returns a copy of a case whose steps and events may be changed. The objects are still shared.
func withSteps(c Case) Case {
	c.Steps = slices.Clone(c.Steps)
	for i := range c.Steps {
		c.Steps[i].Events = slices.Clone(c.Steps[i].Events)
	}
	return c
}

// smallerObjects returns functions that make an object smaller in place. They get a copy of the object.
// An object without parts has no way.
func smallerObjects(o oracle.Object) []func(oracle.Object) {
	var ways []func(oracle.Object)
	if len(o.GetLabels()) > 0 {
		ways = append(ways, func(o oracle.Object) { o.SetLabels(nil) })
	}
	switch o := o.(type) {
	case *corev1.Pod:
		ways = append(ways, smallerPods(o)...)
	case *mnpv1.MultiNetworkPolicy:
		ways = append(ways, smallerPolicies(o)...)
	}
	return ways
}

// smallerPods leaves out the containers of a pod, an interface of its network status, an interface of the kernel, or an
// address.
func smallerPods(p *corev1.Pod) []func(oracle.Object) {
	var ways []func(oracle.Object)
	if len(p.Spec.Containers)+len(p.Spec.InitContainers) > 0 {
		ways = append(ways, func(o oracle.Object) { o.(*corev1.Pod).Spec.Containers, o.(*corev1.Pod).Spec.InitContainers = nil, nil })
	}
	var status []statusEntry
	if err := json.Unmarshal([]byte(p.Annotations[statusAnnotation]), &status); err == nil {
		for i := range status {
			ways = append(ways, func(o oracle.Object) { setStatus(o.(*corev1.Pod), slices.Delete(slices.Clone(status), i, i+1)) })
		}
	}
	links := annotatedLinks(p)
	for i := range links {
		ways = append(ways, func(o oracle.Object) { setLinks(o.(*corev1.Pod), slices.Delete(slices.Clone(links), i, i+1)) })
		for j := range links[i].Addrs {
			ways = append(ways, func(o oracle.Object) {
				fewer := slices.Clone(links)
				fewer[i].Addrs = slices.Delete(slices.Clone(links[i].Addrs), j, j+1)
				setLinks(o.(*corev1.Pod), fewer)
			})
		}
	}
	return ways
}

// smallerPolicies leaves out the pod selector of a policy, a rule, a peer or a port.
func smallerPolicies(p *mnpv1.MultiNetworkPolicy) []func(oracle.Object) {
	var ways []func(oracle.Object)
	add := func(f func(s *mnpv1.MultiNetworkPolicySpec)) {
		ways = append(ways, func(o oracle.Object) { f(&o.(*mnpv1.MultiNetworkPolicy).Spec) })
	}
	// Without its selector, a policy selects all pods.
	if s := p.Spec.PodSelector; len(s.MatchLabels)+len(s.MatchExpressions) > 0 {
		add(func(s *mnpv1.MultiNetworkPolicySpec) {
			s.PodSelector.MatchLabels, s.PodSelector.MatchExpressions = nil, nil
		})
	}
	for i, r := range p.Spec.Ingress {
		add(func(s *mnpv1.MultiNetworkPolicySpec) { s.Ingress = slices.Delete(s.Ingress, i, i+1) })
		for j := range r.From {
			add(func(s *mnpv1.MultiNetworkPolicySpec) { s.Ingress[i].From = slices.Delete(s.Ingress[i].From, j, j+1) })
		}
		for j := range r.Ports {
			add(func(s *mnpv1.MultiNetworkPolicySpec) { s.Ingress[i].Ports = slices.Delete(s.Ingress[i].Ports, j, j+1) })
		}
	}
	for i, r := range p.Spec.Egress {
		add(func(s *mnpv1.MultiNetworkPolicySpec) { s.Egress = slices.Delete(s.Egress, i, i+1) })
		for j := range r.To {
			add(func(s *mnpv1.MultiNetworkPolicySpec) { s.Egress[i].To = slices.Delete(s.Egress[i].To, j, j+1) })
		}
		for j := range r.Ports {
			add(func(s *mnpv1.MultiNetworkPolicySpec) { s.Egress[i].Ports = slices.Delete(s.Egress[i].Ports, j, j+1) })
		}
	}
	return ways
}

// withoutFlags leaves out one flag of the agent.
// The other flags stay.
func withoutFlags(c Case) (ways []func() Case) {
	for _, name := range slices.Sorted(maps.Keys(c.Flags)) {
		ways = append(ways, func() Case {
			next := c
			next.Flags = maps.Clone(c.Flags)
			delete(next.Flags, name)
			return next
		})
	}
	return ways
}
