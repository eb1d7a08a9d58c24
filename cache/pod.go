package cache

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// pod is a pod that has interfaces, or is local. Others can be neither peer nor target, and are not kept.
type pod struct {
	key       Key
	uid       types.UID
	namespace *namespace
	mirrors   types.UID // of the static pod that it stands for, if it does
	source    podSource
	problems  problems
	podState
	groups    []*group      // active groups that it is in
	target    *target       // local pods
	announced *announcement // nil once the API server has told of it
	mark      uint64
}

// podState is what groups and policies look at.
type podState struct {
	known       bool // whether attachments are what the pod has
	expected    bool // attachments, if known, are what the pod asks for: it had no network status that could be read yet
	labels      labelSet
	attachments []attachment // sorted by interface, then network
	ports       []namedPort  // sorted
}

// attachment is one interface of a pod on one network.
type attachment struct {
	iface   string
	network *network
	addrs   []netip.Addr // sorted
}

// isOn says whether the pod has an interface on the network.
func (p *pod) isOn(n *network) bool {
	return slices.ContainsFunc(p.attachments, func(a attachment) bool { return a.network == n })
}

func (a attachment) samePlace(b attachment) bool { return a.iface == b.iface && a.network == b.network }

func (a attachment) equal(b attachment) bool { return a.samePlace(b) && slices.Equal(a.addrs, b.addrs) }

// UpsertPod takes a pod as it is now. Pods on the host's network, and pods that have terminated, are as good as gone.
// When the network status cannot be read, what the same pod had before stays.
func (c *Cache) UpsertPod(obj *corev1.Pod) []Problem {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := Key{Namespace: obj.Namespace, Name: obj.Name}
	p := c.pods[key]
	if p.isLate(obj.UID) {
		return nil
	}
	if p != nil && (p.uid != obj.UID || isOutside(obj)) {
		c.removePod(p)
		p = nil
	}
	if isOutside(obj) {
		return nil
	}
	if p != nil {
		p.announced = nil
	}
	return c.upsertPod(key, p, obj)
}

// upsertPod takes a pod of which p is what is known, nil when that is nothing.
func (c *Cache) upsertPod(key Key, p *pod, obj *corev1.Pod) []Problem {
	local := obj.Spec.NodeName == c.node
	// Who has no node of its own looks at the pods of all nodes.
	r := readSource(p, obj.Namespace, sourceOf(obj, local || c.node == ""))
	if p == nil {
		if !local && len(r.entries) == 0 {
			return r.problems
		}
		p = c.addPod(key, obj.UID)
	}
	p.mirrors = types.UID(obj.Annotations[corev1.MirrorPodAnnotationKey])
	p.source, p.problems = r.source, r.problems
	next := c.stateOf(p, obj)
	keep := r.same || r.broken && p.known && !p.expected // it had a network status
	if !keep {
		next.known, next.expected, next.attachments = r.known, r.expected, c.attachments(p.attachments, r.entries)
	}
	c.setLocal(p, local)
	c.setState(p, next)
	if !local && len(p.attachments) == 0 {
		c.removePod(p)
	}
	return p.problems
}

// DeletePod says that there is no such pod. Of one that was only announced it says nothing: that is another one, of the
// same name.
func (c *Cache) DeletePod(key Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.pods[key]; p != nil && p.announced == nil {
		c.removePod(p)
	}
}

// isOutside says whether policies have nothing to do with a pod.
func isOutside(obj *corev1.Pod) bool {
	return obj.Spec.HostNetwork || obj.Status.Phase == corev1.PodSucceeded || obj.Status.Phase == corev1.PodFailed
}

func (c *Cache) addPod(key Key, uid types.UID) *pod {
	p := &pod{key: key, uid: uid, namespace: c.namespace(key.Namespace)}
	p.namespace.pods++
	c.pods[key] = p
	return p
}

func (c *Cache) removePod(p *pod) {
	c.setLocal(p, false)
	c.setState(p, podState{})
	delete(c.pods, p.key)
	p.namespace.pods--
	c.dropNamespace(p.namespace)
}

// stateOf returns the pod's state with the object's labels and ports. What did not change keeps its memory.
func (c *Cache) stateOf(p *pod, obj *corev1.Pod) podState {
	next := p.podState
	if !next.labels.equal(obj.Labels) {
		next.labels = newLabelSet(obj.Labels)
	}
	if ports := namedPortsOf(obj); !slices.Equal(ports, next.ports) {
		next.ports = ports
	}
	return next
}

// attachments returns the entries with their networks, and what the pod has now when that is the same.
func (c *Cache) attachments(now []attachment, entries []statusEntry) []attachment {
	next := make([]attachment, 0, len(entries))
	for _, e := range entries {
		next = append(next, attachment{iface: e.iface, network: c.network(e.network), addrs: e.addrs})
	}
	if slices.EqualFunc(now, next, attachment.equal) {
		return now
	}
	return next
}

// setState replaces what is known of a pod, and brings the groups it is in and its rules up to date.
func (c *Cache) setState(p *pod, next podState) {
	before := p.podState
	sameLabels := slices.Equal(before.labels, next.labels)
	sameAttachments := slices.EqualFunc(before.attachments, next.attachments, attachment.equal)
	samePorts := slices.Equal(before.ports, next.ports)
	if sameLabels && sameAttachments && samePorts && before.known == next.known && before.expected == next.expected {
		return
	}
	p.podState = next
	if !sameAttachments {
		for _, a := range next.attachments {
			a.network.attach(p)
		}
	}
	c.regroup(p, &before)
	if !sameAttachments {
		for _, a := range before.attachments {
			if !p.isOn(a.network) {
				a.network.detach(p)
				c.dropNetwork(a.network)
			}
		}
	}
	if p.target != nil {
		c.retarget(p.target, &before)
	}
}

// regroup brings the groups that a pod is in up to date: before is what they know of it.
func (c *Cache) regroup(p *pod, before *podState) {
	matched := c.match(p)
	joined := c.tick
	stayed := c.next()
	for _, g := range p.groups {
		if g.mark == joined {
			g.mark = stayed
			c.changeMember(g, before, &p.podState)
		} else {
			c.changeMember(g, before, nil)
		}
	}
	for _, g := range matched {
		if g.mark == joined {
			c.changeMember(g, nil, &p.podState)
		}
	}
	clear(p.groups)
	p.groups = append(p.groups[:0], matched...)
}
