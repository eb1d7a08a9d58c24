package cache

import (
	"net/netip"
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// PodView is a copy of a local pod at one moment, for explanations. The caller must not change it.
type PodView struct {
	ID          PodID
	Known       bool // the interfaces are known
	Overflow    bool // the pod has more interfaces than the limit
	Labels      labelindex.Set
	Ports       []policy.NamedPort // sorted
	Attachments []AttachmentView   // sorted by interface
	Policies    []*policy.Policy   // of the pod's namespace, sorted
	Isolated    [len(engine.Directions)][]IsolationView
	Problems    []PolicyProblem // problems of policies that exceed a limit of the pod
	Tables      engine.Tables
	HasBridge   bool // policies must be enforced in a bridge too: the pod has a virtual machine

	// Caveats has, for interfaces of unknown kind, the reason why a packet that the policies deny may pass. LostReplies
	// has, for interfaces that show only sent packets to the rules, the reason why replies are dropped. Both are by
	// interface.
	Caveats, LostReplies map[string]string
}

// AttachmentView is an interface of a pod on a network.
type AttachmentView struct {
	Interface  string
	Network    Key
	PluginType string // empty: unknown
	EnforcedBy string // implementation that enforces policies for the network; empty: this agent, or nobody
	Addrs      []netip.Addr
}

// IsolationView is an isolated interface.
type IsolationView struct {
	Interface string
	Policies  []*policy.Policy // policies that isolate the interface, sorted
	Audited   bool             // all of them are in audit mode, so nothing is dropped
	Effective []*policy.Policy // of these, the policies whose rules apply; the others exceed a limit

	Unenforceable string // why the kernel does not show all packets of the direction to the rules; empty: it does
}

// View plans a local pod and returns its view. It returns false for a pod that is not local.
func (c *Cache) View(key Key) (PodView, bool) {
	id, ok := c.LocalPod(key)
	if !ok {
		return PodView{}, false
	}
	target, _ := c.Plan(id)
	c.lock()
	defer c.unlock()
	t := c.targets[id]
	if t == nil {
		return PodView{}, false
	}
	s := t.pod.state
	v := PodView{
		ID: id, Known: s.known, Overflow: s.overflow, Labels: s.labels, Ports: s.ports, Problems: t.plan.problems, Tables: target.Tables,
		HasBridge: target.HasBridge, Caveats: map[string]string{}, LostReplies: map[string]string{},
	}
	// The addresses as the annotations say, even if the pod is nobody's peer.
	for _, a := range t.pod.read {
		v.Attachments = append(v.Attachments, c.viewOf(t.pod, a))
	}
	for _, p := range t.pod.namespace.ordered {
		v.Policies = append(v.Policies, p.Policy)
	}
	now := c.view(t)
	now.isolate()
	for _, d := range engine.Directions {
		for _, i := range now.isolated[d] {
			view := IsolationView{Interface: i.iface, Audited: i.audited, Unenforceable: i.hidden.in(d)}
			if d == engine.Egress && i.hidden.ingressOnly {
				v.LostReplies[i.iface] = i.hidden.why
			}
			for _, p := range i.policies {
				view.Policies = append(view.Policies, p.Policy)
				if t.plan.applies(p) {
					view.Effective = append(view.Effective, p.Policy)
				}
			}
			v.Isolated[d] = append(v.Isolated[d], view)
		}
	}
	for _, a := range now.attachments {
		if a.isolated && a.caveat != "" {
			v.Caveats[a.iface] = a.caveat
		}
	}
	return v, true
}

// viewOf returns the view of an attachment of a pod.
func (c *Cache) viewOf(p *pod, a attachment) AttachmentView {
	v := AttachmentView{Interface: a.iface, Network: a.network.key, PluginType: a.network.PluginType, Addrs: slices.Collect(a.addrs.all())}
	if !c.isolates(a.network, p) {
		v.EnforcedBy = c.options.EnforcedBy[a.network.PluginType]
	}
	return v
}

// Interfaces returns the names of the pod's interfaces, sorted.
func (v *PodView) Interfaces() []string {
	var names []string
	for _, a := range v.Attachments {
		names = append(names, a.Interface)
	}
	return slices.Compact(names)
}

// PeerView is a copy of a pod as a peer.
type PeerView struct {
	Key         Key
	Labels      labelindex.Set
	Attachments []AttachmentView
	Limit       string // limit that keeps the pod from being a peer, "NAME=N"; empty: the pod is a peer

	namespace namespace // copy of the fields that selectors depend on
}

// Peers calls f with each pod that the API server knows. It holds the lock meanwhile, so f must not call the cache.
func (c *Cache) Peers(f func(PeerView)) {
	c.lock()
	defer c.unlock()
	for _, p := range c.pods {
		v := PeerView{Key: p.key, Labels: p.state.labels, namespace: namespace{name: p.namespace.name, known: p.namespace.known, labels: p.namespace.labels}}
		if p.unfit {
			v.Limit = c.addressLimit()
		}
		for _, a := range p.read {
			v.Attachments = append(v.Attachments, c.viewOf(p, a))
		}
		f(v)
	}
}

// IsSelectedBy reports whether a peer of a rule selects the pod, regardless of networks.
// Labels of a namespace that is unknown match only a selector without conditions.
func (v *PeerView) IsSelectedBy(p policy.Peer) bool {
	s := scope{key: p.Scope, namespaces: p.Namespaces}
	return s.selects(&v.namespace) && p.Pods.Matches(&v.Labels)
}

// Has returns the attachments on which the pod has the address.
func (v *PeerView) Has(addr netip.Addr) []AttachmentView {
	var found []AttachmentView
	for _, a := range v.Attachments {
		if slices.Contains(a.Addrs, addr) {
			found = append(found, a)
		}
	}
	return found
}

// Members returns the addresses or, for an endpoint group, the endpoints that a peer group has now. It makes the group
// for the moment if no local pod uses it.
// It is for explanations: it may take long for a large group.
func (c *Cache) Members(spec *policy.Group) (sets.Addrs, sets.Endpoints) {
	c.lock()
	g, isNew := c.acquireGroup(spec, "")
	c.unlock()
	if g == nil {
		return sets.Addrs{}, sets.Endpoints{} // another group has the name by a collision of hashes, so it allows nobody
	}
	if isNew {
		c.fill(g)
	}
	<-g.ready
	addrs, endpoints := g.snapshot()
	c.lock()
	c.releaseGroup(g, "")
	c.unlock()
	c.retire("")
	return addrs, endpoints
}

// Settings returns the options of the cache. The caller must not change them.
func (c *Cache) Settings() *Options { return &c.options }
