package cache

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// A policy that lets pods of other namespaces in has their addresses in its peer groups, so the pods of a namespace can make
// the tables of another namespace large. So the addresses that the pods of a namespace have as peers are limited. The
// oldest pods are peers, as many as fit. Which pods these are follows from the pods alone, and a new pod takes nothing from others.

// addressed has the pods of a namespace that have addresses: as many of the oldest as fit the limit are peers.
//
//	pods   ├─ old ─────────────┼─ young ──┤
//	       │ peers: fit        │ unfit    │
type addressed struct {
	pods  []*pod // sorted by age, the oldest first
	fit   int    // number of pods at the start of the list that are peers
	used  int    // addresses of the peers
	total int    // addresses of all pods in the list
}

// compareAges sorts the oldest pod first. Names decide between pods of the same second, so that the order follows from
// the pods alone.
func compareAges(a, b *pod) int {
	return cmp.Or(cmp.Compare(a.created, b.created), policy.CompareKeys(a.key, b.key))
}

// countAddresses returns the number of addresses of all attachments.
// An address on two attachments counts twice.
func countAddresses(list []attachment) (n int) {
	for _, a := range list {
		n += a.addrs.len()
	}
	return n
}

// visible returns the attachments of a pod as policies see them: without addresses if the pod is unfit. It returns the
// old list if that is equal.
// The caller holds the lock.
func (p *pod) visible(old []attachment) []attachment {
	if !p.unfit {
		return p.read
	}
	bare := slices.Clone(p.read)
	for i := range bare {
		bare[i].addrs = ""
	}
	if slices.EqualFunc(old, bare, attachment.equal) {
		return old
	}
	return bare
}

// setAddresses notes the number of addresses of a pod. Other pods of the namespace may become peers, or cease to be
// peers: at most as many as the pod has, or had, addresses. The caller updates the state of the pod itself.
// n is the number now; 0 takes the pod out of the list.
func (c *Cache) setAddresses(p *pod, n int) {
	if int(p.addresses) == n {
		return
	}
	a := &p.namespace.addressed
	// Whether the namespace exceeds its limit, before and after.
	was := a.fit < len(a.pods)
	// A pod whose number changes is taken out and put in again, at the same place.
	i, found := slices.BinarySearchFunc(a.pods, p, compareAges)
	if found {
		a.pods = slices.Delete(a.pods, i, i+1)
		a.total -= int(p.addresses)
		if i < a.fit {
			a.fit--
			a.used -= int(p.addresses)
		}
	}
	p.addresses, p.unfit = int32(n), false
	if n > 0 {
		a.pods = slices.Insert(a.pods, i, p)
		a.total += n
		// A pod behind the last peer is unfit at first; fill corrects that if there is room.
		p.unfit = i > a.fit
		if !p.unfit {
			a.fit++
			a.used += n
		}
	}
	// Each pod that becomes or ceases to be a peer changes its groups like a pod whose status changes.
	for _, other := range a.fill(c.limits.NamespaceAddresses) {
		if other != p {
			c.setState(other, other.state.with(other.visible(nil)))
		}
	}
	switch is := a.fit < len(a.pods); {
	case is && !was:
		c.counts.limitedNamespaces.Add(1)
	case was && !is:
		c.counts.limitedNamespaces.Add(-1)
	}
}

// fill makes as many pods peers as the limit admits, and returns the pods that changed. Only pods at the border between
// peers and the others can change.
// unfit of each returned pod is up to date; its state is not yet.
func (a *addressed) fill(limit int) (changed []*pod) {
	for ; a.used > limit; changed = append(changed, a.pods[a.fit]) {
		a.fit--
		a.used -= int(a.pods[a.fit].addresses)
		a.pods[a.fit].unfit = true
	}
	for ; a.fit < len(a.pods) && a.used+int(a.pods[a.fit].addresses) <= limit; a.fit++ {
		a.used += int(a.pods[a.fit].addresses)
		a.pods[a.fit].unfit = false
		changed = append(changed, a.pods[a.fit])
	}
	return changed
}

// with returns the state with other attachments.
// The old state does not change, as groups may still have it.
func (s *podState) with(attachments []attachment) *podState {
	next := *s
	next.attachments = attachments
	return &next
}

// withAddressProblem returns the problems of a pod's annotations. If the namespace of the pod has too many addresses, the result
// says so.
// The given list is not changed.
func (c *Cache) withAddressProblem(p *pod, problems []policy.Problem) []policy.Problem {
	a := &p.namespace.addressed
	if a.fit == len(a.pods) || p.addresses == 0 {
		return problems
	}
	pods := "this pod is nobody's peer"
	if !p.unfit {
		pods = fmt.Sprintf("the %d youngest pods are nobody's peers", len(a.pods)-a.fit)
	}
	return append(slices.Clip(problems), policy.Problem{
		Field:   annotationField(StatusAnnotation),
		Message: fmt.Sprintf("the pods of the namespace exceed the limit %s, so %s (--limit)", c.addressLimit(), pods),
	})
}

// addressLimit returns the limit of the addresses of a namespace in the form of --limit.
func (c *Cache) addressLimit() string {
	return fmt.Sprintf("namespace-addresses=%d", c.limits.NamespaceAddresses)
}
