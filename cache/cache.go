// Package cache is the brain of the agent. It holds pods, namespaces, policies, network attachment definitions and
// sandboxes in the compact form that policies need, and answers two questions: which local pods have changed
// ([Cache.TakeDirty]), and what the table in the network namespace of one of them must hold ([Cache.Target]).
//
// # Invariants
//
// State only. What a pod gets is a function of the objects that the cache holds now, never of the order or the number
// of events that led there. Two memories are the exception, and both only keep what is enforced: a network-status
// annotation that cannot be read leaves the interfaces known that were known for the same pod UID, and a
// NetworkAttachmentDefinition that cannot be read, or is gone, leaves its last plugin type known while pods are
// attached to the network.
//
// Pure. No goroutine, no I/O, no clock, no log. A mutex makes it safe for concurrent use.
//
// Closed. What cannot be understood allows nothing, takes nothing else with it, and comes back as a [Problem] that
// names its field.
//
// Lazy. Members of a peer group are known and kept current only while the rules of some local pod use the group. Peer
// selectors are indexed by (scope of namespaces, network, one label), so an event of a pod costs the lookups of its own
// labels and the groups that it is in, not the number of pods or policies.
//
// Never missed. A pod whose Target is no longer what was last read of it is dirty. Targets are made when they are read,
// and everything that one was made of marks the pod when it changes.
//
// Shared and immutable. Sets and chains in a Ruleset are never changed once handed out. An unchanged one keeps its
// pointer, and pods that use the same one get the same pointer. A change of a group's members replaces the set of the
// family that changed and nothing else.
package cache

import (
	"cmp"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Options are what a Cache must know beside the objects.
type Options struct {
	Node           string   // pods on this node are local
	NetworkPlugins []string // plugin types whose networks policies isolate
	AcceptICMP     bool     // ICMP passes on isolated interfaces
	AcceptICMPv6   bool     // ICMPv6 passes on isolated interfaces, not just what IPv6 needs on a link

	// RevokeEstablished makes every packet of a connection be asked whether the connection is allowed, not the first alone.
	RevokeEstablished bool

	PolicyCounters bool // rules of policies count the packets that they accept

	Ingress, Egress Common
}

// Key is the namespace and name of an object.
type Key = types.NamespacedName

// Cache is the state. New makes one. All methods may be called concurrently.
type Cache struct {
	mu      sync.Mutex
	node    string
	options Options
	plugins map[string]bool
	common  [len(directions)]commonPart

	pods       map[Key]*pod
	namespaces map[string]*namespace
	networks   map[Key]*network
	policies   map[Key]*policy
	sandboxes  map[types.UID]Sandbox

	targets map[Key]*target      // local pods
	scopes  map[scopeKey]*scope  // what active groups select namespaces by
	groups  map[string]*group    // active, by name
	ports   map[string]*portList // in use, by name
	dirty   map[Key]struct{}
	crowds  map[crowd]crowdIndex // nil: asked for once

	tick    uint64 // marks what one walk has seen
	scratch scratch
}

// scratch is memory that one event uses and the next one uses again.
type scratch struct {
	groups      []*group
	entries     []*peerEntry
	before, now []sets.Endpoint
}

// New returns an empty cache.
func New(o Options) *Cache {
	c := &Cache{
		node:       o.Node,
		options:    o,
		plugins:    map[string]bool{},
		common:     commonParts(o),
		pods:       map[Key]*pod{},
		namespaces: map[string]*namespace{},
		networks:   map[Key]*network{},
		policies:   map[Key]*policy{},
		sandboxes:  map[types.UID]Sandbox{},
		targets:    map[Key]*target{},
		scopes:     map[scopeKey]*scope{},
		groups:     map[string]*group{},
		ports:      map[string]*portList{},
		dirty:      map[Key]struct{}{},
		crowds:     map[crowd]crowdIndex{},
	}
	for _, p := range o.NetworkPlugins {
		c.plugins[p] = true
	}
	return c
}

// TakeDirty returns the local pods whose Target may have changed since the last call, sorted, and forgets them. Pods
// that are gone, or no longer a target, are among them. Who gets a pod reads its Target some time later: what changes
// before that is in what is read, and need not be reported again.
func (c *Cache) TakeDirty() []Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.dirty) == 0 {
		return nil
	}
	keys := make([]Key, 0, len(c.dirty))
	for k := range c.dirty {
		keys = append(keys, k)
	}
	clear(c.dirty)
	slices.SortFunc(keys, compareKeys)
	return keys
}

func compareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// next starts a walk: nothing carries the mark that it returns.
func (c *Cache) next() uint64 {
	c.tick++
	return c.tick
}
