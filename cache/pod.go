package cache

import (
	"hash/maphash"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// pod is a pod with interfaces, or a local pod. Other pods can be neither peer nor target, and are not kept.
//
// A large cluster has many remote pods, so the fields that only local pods need are in localPod.
type pod struct {
	key       Key
	identity  uint64 // hash of the UID
	created   int64  // see Pod.Created
	namespace *namespace
	state     *podState // never nil
	// read has the attachments as the annotations say. state has them without addresses if the pod is unfit.
	read      []attachment
	groups    []*group  // groups that the pod is in, sorted by ID
	status    uint64    // hash of the texts that state.attachments were read from
	target    *target   // nil unless the pod is local
	local     *localPod // nil: the pod has never been local
	addresses int32     // number of addresses in read
	unfit     bool      // the addresses exceed the limit of the namespace, so the pod is nobody's peer
	announced bool      // known from the container runtime alone
	gone      bool      // removed: a walk that still has the pod must ignore it
}

// localPod has the fields that only local pods need.
type localPod struct {
	uid      types.UID
	mirrors  types.UID        // UID of the static pod that this pod mirrors; empty: none
	problems []policy.Problem // problems of the annotations
	dropLog  Choice           // see DropLogAnnotation
}

// podState is the part of a pod that groups and policies depend on. It never changes: an event replaces it. So a group
// can keep the state that it last counted, and compare pointers.
type podState struct {
	known       bool // the attachments are known
	attached    bool // the pod has a status that can be read
	overflow    bool // the pod has more interfaces than the limit; attachments holds the first of them
	cutLabels   bool // the labels exceed the limit, so they are unknown
	labels      labelindex.Set
	attachments []attachment // sorted by interface, then network
	ports       []policy.NamedPort
}

// noState is the state of a pod before it comes and after it has gone.
// Comparing pointers with it tells whether a pod contributes anything.
var noState = &podState{}

// attachment is an interface of a pod on a network.
// It is a value of podState, so it never changes.
type attachment struct {
	iface   string
	network *network
	addrs   addrList // sorted; empty for an interface that is only requested
}

// id returns the identity of a local pod.
// The pod must be or have been local.
func (p *pod) id() PodID { return PodID{p.key, p.local.uid} }

// identity returns the hash of a UID. Only the API server and the runtime choose UIDs.
func (c *Cache) identity(uid types.UID) uint64 { return maphash.Comparable(c.seed, uid) }

// isOn reports whether the pod has an interface on the network.
func (p *pod) isOn(n *network) bool {
	return slices.ContainsFunc(p.state.attachments, func(a attachment) bool { return a.network == n })
}

// samePlace reports whether both are the same interface on the same network.
func (a attachment) samePlace(b attachment) bool { return a.iface == b.iface && a.network == b.network }

// equal reports whether the addresses are the same too.
func (a attachment) equal(b attachment) bool { return a.samePlace(b) && a.addrs == b.addrs }

// UpsertPod takes a pod as it is now. A pod on the host's network and a terminated pod count as gone. It returns the
// problems of the pod's annotations, for a remote pod only if the annotations changed.
func (c *Cache) UpsertPod(obj Pod) []policy.Problem {
	c.lock()
	defer c.unlock()
	p := c.pods[obj.Key]
	local := obj.Node == c.node || c.node == ""
	// A new UID is another pod with the same name. A remote pod that is not scheduled is no peer.
	if p != nil && (p.identity != c.identity(obj.UID) || obj.Outside != "" || !local && obj.Node == "") {
		c.removePod(p)
		p = nil
	}
	// A terminated pod may only be known from the runtime.
	if obj.Outside != "" {
		if t := c.byUID[obj.UID]; t != nil && t.pod.announced {
			c.removePod(t.pod)
		}
		return nil
	}
	if p == nil {
		if !local && (obj.Node == "" || !obj.hasStatus()) {
			return nil // neither a target nor a peer
		}
		if t := c.byUID[obj.UID]; local && t != nil && t.pod.announced && t.pod.key == obj.Key {
			p = t.pod // the container runtime was faster than the API server
			p.announced = false
		} else {
			p = c.newPod(obj.Key, obj.UID)
		}
		c.pods[obj.Key] = p
		c.counts.pods.Add(1)
	}
	problems := c.update(p, obj, local)
	// A remote pod without interfaces can be neither peer nor target.
	if !local && len(p.state.attachments) == 0 {
		c.removePod(p)
	}
	return problems
}

// AnnouncePod takes a pod that starts on this node from its container runtime, which may know the pod before the events
// of the API server arrive. The pod counts as a local pod until UpsertPod takes the pod itself; if that never happens,
// it goes with its sandbox. It is nobody's peer, and does not replace another pod with the same name.
func (c *Cache) AnnouncePod(obj Pod) {
	c.lock()
	defer c.unlock()
	// The API server's version of the pod is newer, or equal.
	if t := c.byUID[obj.UID]; t != nil && !t.pod.announced || obj.Outside != "" || obj.Node != c.node {
		return
	}
	var p *pod
	if t := c.byUID[obj.UID]; t != nil {
		p = t.pod
	} else {
		p = c.newPod(obj.Key, obj.UID)
		p.announced = true
	}
	c.update(p, obj, true)
}

// DeletePod removes a pod. An announced pod of the same name stays: the deletion belongs to an earlier pod.
// An unknown pod is ignored.
func (c *Cache) DeletePod(key Key) {
	c.lock()
	defer c.unlock()
	if p := c.pods[key]; p != nil {
		c.removePod(p)
	}
}

// Pods returns the keys of the pods from the API server that the cache holds.
// The order is random. Announced pods are not among them.
func (c *Cache) Pods() []Key {
	c.lock()
	defer c.unlock()
	keys := make([]Key, 0, len(c.pods))
	for key := range c.pods {
		keys = append(keys, key)
	}
	return keys
}

// newPod returns a pod without interfaces, in its namespace.
// The caller holds the lock, and must give the pod a state or remove it.
func (c *Cache) newPod(key Key, uid types.UID) *pod {
	p := &pod{identity: c.identity(uid), namespace: c.namespace(key.Namespace), state: noState}
	p.key = Key{Namespace: p.namespace.name, Name: key.Name} // all pods of a namespace share the text of its name
	p.namespace.pods[p] = struct{}{}
	return p
}

// removePod removes a pod from the namespace, the networks, the groups and the targets.
// The caller holds the lock. Walks that still have the pod see that it is gone.
func (c *Cache) removePod(p *pod) {
	c.setLocal(p, false)
	c.setState(p, noState)
	c.setAddresses(p, 0)
	if !p.announced {
		delete(c.pods, p.key)
		c.counts.pods.Add(-1)
	}
	p.gone = true
	delete(p.namespace.pods, p)
	c.dropNamespace(p.namespace)
}

// update reads the object into the pod, and returns all problems of its annotations.
// local says whether the pod is local now; a pod may become local when it gets its node.
func (c *Cache) update(p *pod, obj Pod, local bool) []policy.Problem {
	isDated := p.created != obj.Created // the runtime had announced the pod, without the time
	p.created = obj.Created
	if local && p.local == nil {
		p.local = &localPod{uid: obj.UID}
	}
	var problems []policy.Problem
	if p.local != nil {
		problems = p.local.problems
	}
	next := *p.state
	next.labels, next.cutLabels = p.namespace.share(keepEqual(p.state.labels, obj.Labels)), obj.CutLabels
	next.ports = keepEqual(p.state.ports, obj.Ports)
	// Annotations are decoded only if their texts have changed.
	if hash := p.hash(c.seed, &obj, local); hash != p.status || p.state == noState {
		p.status = hash
		r := readInterfaces(obj, local, p.state, c.limits)
		if p.announced || obj.Node == "" || obj.CutLabels {
			r.dropAddresses() // nobody's peer
		}
		next.known, next.attached, next.overflow = r.known, r.attached, r.overflow
		problems = r.problems.List()
		p.read = c.attachments(p.read, r.entries)
		c.setAddresses(p, countAddresses(p.read))
	}
	logChanged := false
	if p.local != nil {
		p.local.mirrors, p.local.problems = obj.Mirrors, problems
		logChanged = p.local.dropLog != obj.DropLog
		p.local.dropLog = obj.DropLog
	}
	next.attachments = p.visible(p.state.attachments)
	// The target must exist before its state is set.
	c.setLocal(p, local)
	c.setState(p, &next)
	if t := p.target; t != nil {
		t.runtimeClass = obj.RuntimeClass
		c.updateRuntime(t)
		if (isDated || logChanged) && t.selected.count > 0 {
			c.markStale(t)
		}
	}
	problems = c.withAddressProblem(p, problems)
	if bad := obj.DropLog.problems(); bad != nil {
		problems = slices.Concat(problems, bad)
	}
	return problems
}

// hash covers everything that the attachments of the pod depend on. A hash takes less memory than the texts.
func (p *pod) hash(seed maphash.Seed, o *Pod, local bool) uint64 {
	return maphash.Comparable(seed, [...]any{o.Status, o.StatusField, o.Requested, local, o.Node == "", o.CutLabels, p.announced})
}

// keepEqual returns the old list when the new one is equal, so that its memory is shared.
func keepEqual[S ~[]E, E comparable](old, next S) S {
	if slices.Equal(old, next) {
		return old
	}
	return next
}

// attachments returns the entries with their networks. It returns the old list if that is equal.
func (c *Cache) attachments(old []attachment, entries []entry) []attachment {
	next := make([]attachment, 0, len(entries))
	for _, e := range entries {
		n := c.network(e.network)
		if n.iface != e.iface { // most pods of a network have the same name for it, and share its text
			n.iface = e.iface
		}
		next = append(next, attachment{iface: n.iface, network: n, addrs: newAddrList(e.addrs)})
	}
	if slices.EqualFunc(old, next, attachment.equal) {
		return old
	}
	return next
}

// setState replaces the state of a pod, and updates the groups that the pod is in, and its target.
// The caller holds the lock. An equal state changes nothing.
func (c *Cache) setState(p *pod, next *podState) {
	before := p.state
	sameLabels := slices.Equal(before.labels, next.labels) && before.cutLabels == next.cutLabels
	sameAttachments := slices.EqualFunc(before.attachments, next.attachments, attachment.equal)
	samePorts := slices.Equal(before.ports, next.ports)
	if sameLabels && sameAttachments && samePorts && before.known == next.known &&
		before.attached == next.attached && before.overflow == next.overflow && before.cutLabels == next.cutLabels && before != noState {
		return
	}
	p.state = next
	if !sameAttachments || !sameLabels {
		p.namespace.version++
	}
	// The new networks first: a network that the pod stays on must not be dropped in between.
	if !sameAttachments {
		for _, a := range next.attachments {
			a.network.pods[p] = struct{}{}
		}
	}
	c.regroup(p, before)
	if !sameAttachments {
		c.leaveNetworks(p, before)
	}
	if p.target != nil {
		c.retarget(p.target, before)
	}
}

// leaveNetworks removes the pod from the networks that it is no longer on.
func (c *Cache) leaveNetworks(p *pod, before *podState) {
	for _, a := range before.attachments {
		if !p.isOn(a.network) {
			delete(a.network.pods, p)
			c.dropNetwork(a.network)
		}
	}
}
