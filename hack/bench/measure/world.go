package main

import (
	"fmt"
	"net/netip"
	"slices"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// layout is the arrangement of the addresses of peers.
// It decides how many ranges a set of peers has, and so what a change costs the kernel.
type layout string

const (
	scattered  layout = "scattered"  // no neighbors: each address is a range
	contiguous layout = "contiguous" // a single range with a hole, which the added peer fills
)

// size is the size of a world: the peers of a group and the local pods.
type size struct {
	Layout layout `json:"layout"`
	// Peers is the number of peers in the base state, without the added peer.
	Peers int `json:"peers"`
	// Pods is the number of local pods, which all have the same table.
	Pods int `json:"pods"`

	// Only the large pod has several policies and interfaces: the peers and ports are spread over the policies, and each policy
	// isolates all interfaces.
	Policies   int `json:"policies"`
	Interfaces int `json:"interfaces"`
	// Ports is the number of all policies together.
	Ports int `json:"ports"`

	SharedPorts bool `json:"sharedPorts,omitempty"` // all policies have the ports of the first policy
}

func (s size) String() string {
	text := fmt.Sprintf("%d peers, %s, %d pods", s.Peers, s.Layout, s.Pods)
	if s.Policies > 1 {
		text += fmt.Sprintf(", %d policies, %d interfaces, %d ports", s.Policies, s.Interfaces, s.Ports)
	}
	return text
}

// state is a state of the cluster. Events lead from state to state.
type state int

const (
	absent        state = iota // the pods have no table
	base                       // each pod has its table
	withPeer                   // base with an added peer
	withNamespace              // base with the 1,000 pods of a relabeled namespace
	withPolicy                 // base with an added policy, which has its own group
	states
)

// The sizes of the changes.
const (
	namespacePods = 1000
	policyPeers   = 100 // in the group of the added policy
)

// world is a cluster in the agent's cache. Its state is base, except between enter and leave.
type world struct {
	size
	cache *cache.Cache
	pods  []*corev1.Pod // local
	// the same objects in each state, converted when they enter the cache
	objects                           // prepared, as in the informers
	rulesets [states][]engine.Ruleset // by pod, for ways without the cache
}

// newWorld fills a cache, and notes the rulesets of each state: the cache enters the state, plans all pods, and
// leaves it.
func newWorld(s size) *world {
	w := &world{size: s, cache: newCache(), objects: newObjects(s)}
	w.fill(w.cache)
	for i := range s.Pods {
		w.pods = append(w.pods, newPod("local", fmt.Sprintf("pod-%d", i), "web", node, s.podAddrs(i)...))
	}
	w.addPods(w.cache)
	// Pods without a table have an empty ruleset.
	w.rulesets[absent] = make([]engine.Ruleset, s.Pods)
	for at := base; at < states; at++ {
		w.enter(at)
		for _, p := range w.pods {
			w.rulesets[at] = append(w.rulesets[at], rulesetOf(w.cache, p))
		}
		w.leave(at)
	}
	// All pods are planned, so nothing is dirty when the first event comes.
	w.cache.TakeDirty()
	return w
}

// newCache returns an empty cache with the options of the measurement.
func newCache() *cache.Cache { return cache.New(cacheOptions) }

var cacheOptions = cache.Options{Node: node, NetworkPlugins: []string{"macvlan"}, Limits: withManyPeers()}

// manyPeers is more than the peers of a namespace in any measurement.
const manyPeers = 1_000_000

// withManyPeers raises the limit of the addresses of a namespace, which the peers of a measurement exceed.
func withManyPeers() policy.Limits {
	l := policy.DefaultLimits()
	l.NamespaceAddresses = manyPeers
	return l
}

// revoking returns the first pod's ruleset with --established=revoke.
// It plans with a cache of its own, since the option belongs to the cache.
func (w *world) revoking() engine.Ruleset {
	o := cacheOptions
	o.RevokeEstablished = true
	c := cache.New(o)
	w.fill(c)
	w.addPods(c)
	return rulesetOf(c, w.pods[0])
}

// upsert gives the cache an object, converted as the informers convert it.
func upsert(c *cache.Cache, o any) {
	switch o := o.(type) {
	case *corev1.Pod:
		c.UpsertPod(cache.NewPod(o, node, c.Limits()))
	case *corev1.Namespace:
		c.UpsertNamespace(cache.Namespace{Name: o.Name, Labels: labelindex.NewSet(o.Labels)})
	case *netv1.NetworkAttachmentDefinition:
		c.UpsertNAD(cache.NewNAD(cache.Key{Namespace: o.Namespace, Name: o.Name}, o.Spec.Config))
	case *mnpv1.MultiNetworkPolicy:
		c.UpsertPolicy(policy.Compile(policy.ObjectOf(o), c.Limits()))
	}
}

// rulesetOf returns the wanted table of family inet of a local pod.
func rulesetOf(c *cache.Cache, p *corev1.Pod) engine.Ruleset {
	target, _ := c.Plan(idOf(p))
	return target.Tables[engine.Inet]
}

// idOf and keyOf return the names of a pod in the cache.
func idOf(p *corev1.Pod) cache.PodID { return cache.PodID{Key: keyOf(p), UID: p.UID} }

func keyOf(p *corev1.Pod) cache.Key { return cache.Key{Namespace: p.Namespace, Name: p.Name} }

// objects are all objects of a world except the local pods.
type objects struct {
	networks   []*netv1.NetworkAttachmentDefinition
	namespaces []*corev1.Namespace
	peers      []*corev1.Pod
	policies   []*mnpv1.MultiNetworkPolicy

	// The objects that the events add or change.
	peer *corev1.Pod
	// movedIn and moving are the same namespace with and without the label that policies select by.
	movedIn, moving *corev1.Namespace
	policy          *mnpv1.MultiNetworkPolicy
}

// newObjects makes the objects of a size. Three blocks of addresses keep the groups apart: 10.0.0.0/8 for the peers,
// 172.16.0.0 for the pods of the relabeled namespace, and 172.24.0.0 for the peers of the added policy.
func newObjects(s size) objects {
	o := objects{
		namespaces: []*corev1.Namespace{newNamespace("peers", "a"), newNamespace("others", "others")},
		movedIn:    newNamespace("moving", "a"),
		moving:     newNamespace("moving", "none"),
		policy:     newPolicy("policy-other", s.Interfaces, podsOf("others", "other"), newPort(corev1.ProtocolUDP, 22)),
	}
	for i := range s.Interfaces {
		o.networks = append(o.networks, newNetwork(i+1))
	}
	add := func(namespace, app string, block [4]byte, i int) {
		o.peers = append(o.peers, newPod(namespace, fmt.Sprintf("pod-%d", i), app, "elsewhere", s.addr(block, i)))
	}
	for i := range s.Peers + 1 {
		add("peers", app(i%s.Policies), [4]byte{10}, i)
	}
	// The added peer is in the middle, so that it fills the hole of contiguous peers.
	o.peer = o.peers[s.Peers/2]
	o.peers = slices.Delete(o.peers, s.Peers/2, s.Peers/2+1)
	for i := range namespacePods {
		add("moving", app(i%s.Policies), [4]byte{172, 16}, i)
	}
	for i := range policyPeers {
		add("others", "other", [4]byte{172, 24}, i)
	}
	for i := range s.Policies {
		o.policies = append(o.policies, newPolicy(fmt.Sprintf("policy-%03d", i), s.Interfaces, podsOf("a", app(i)), s.portsOf(i)...))
	}
	return o
}

// fill gives a cache the base state without the local pods.
func (w *world) fill(c *cache.Cache) {
	for _, n := range w.networks {
		upsert(c, n)
	}
	for _, n := range append(w.namespaces, w.moving) {
		upsert(c, n)
	}
	for _, p := range w.peers {
		upsert(c, p)
	}
	for _, p := range w.policies {
		upsert(c, p)
	}
}

// addPods adds the local pods, or updates them.
func (w *world) addPods(c *cache.Cache) {
	for _, p := range w.pods {
		upsert(c, p)
	}
}

// app returns the label of the peers of policy number i.
func app(i int) string { return fmt.Sprintf("app-%d", i) }

// addr returns address number i of the block.
// Scattered addresses are four apart: no two are neighbors, and each is a range.
func (s size) addr(block [4]byte, i int) netip.Addr {
	if s.Layout == scattered {
		i *= 4
	}
	return netip.AddrFrom4([4]byte{block[0], block[1] + byte(i>>16), byte(i >> 8), byte(i)})
}

// podAddrs returns an address for each interface of a local pod. No policy selects these addresses.
func (s size) podAddrs(pod int) []netip.Addr {
	var list []netip.Addr
	for i := range s.Interfaces {
		list = append(list, netip.AddrFrom4([4]byte{192, 168, byte(pod), byte(i + 1)}))
	}
	return list
}

// portsOf returns the ports of policy number i: every other UDP port, so that no two ports are neighbors.
func (s size) portsOf(i int) []mnpv1.MultiNetworkPolicyPort {
	if s.SharedPorts {
		i = 0
	}
	var list []mnpv1.MultiNetworkPolicyPort
	for p := i; p < s.Ports; p += s.Policies {
		list = append(list, newPort(corev1.ProtocolUDP, 80+2*p))
	}
	return list
}

// enter changes the state from base to s.
// The world must be in base; leave with the same state goes back.
func (w *world) enter(s state) {
	switch s {
	case withPeer:
		upsert(w.cache, w.peer)
	case withNamespace:
		upsert(w.cache, w.movedIn)
	case withPolicy:
		upsert(w.cache, w.policy)
	}
}

// leave changes the state from s to base.
func (w *world) leave(s state) {
	switch s {
	case withPeer:
		w.cache.DeletePod(keyOf(w.peer))
	case withNamespace:
		upsert(w.cache, w.moving)
	case withPolicy:
		w.cache.DeletePolicy(cache.Key{Namespace: w.policy.Namespace, Name: w.policy.Name})
	}
}
