package cache

import (
	"cmp"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// Options configure a Cache. They do not change after New.
type Options struct {
	Node           string   // pods on this node are local; empty: pods of all nodes are read like local ones
	NetworkPlugins []string // plugin types whose networks policies isolate

	// EnforcedBy has, for plugin types that NetworkPlugins lacks, the implementation of MultiNetworkPolicy that enforces policies
	// on such networks. A policy for such a network has no Shortfall.
	EnforcedBy map[string]string

	// UnenforceableRuntimes are patterns (path.Match) for the names of RuntimeClasses, and of handlers of the container runtime,
	// whose pods have a network stack of their own.
	UnenforceableRuntimes []string

	AcceptICMP   bool // ICMP passes on isolated interfaces
	AcceptICMPv6 bool // ICMPv6 passes on isolated interfaces, not only the messages that IPv6 needs on a link

	// RevokeEstablished makes every packet of a connection face the policies, not only its first.
	RevokeEstablished bool

	// Audit puts every policy without ModeAnnotation into audit mode.
	Audit bool

	DropLog DropLog

	PolicyCounters bool // rules of policies count the packets that they accept

	Bridge BridgeSupport // support of the kernel for tables of family bridge

	// Ingress and Egress are the user's rules for all isolated interfaces.
	Ingress, Egress Common

	Limits policy.Limits // zero: the defaults

	split splitBounds // zero: the defaults

	// LockHeld is called after each release of the lock, with the time that the lock was held. It must be fast. nil:
	// not called.
	LockHeld func(time.Duration)
}

// DefaultNetworkPlugins returns the types of CNI plugins that give a pod an interface of its own in its network
// namespace. Policies are enforced on networks of these types. The caller may change the slice.
func DefaultNetworkPlugins() []string {
	return []string{"macvlan", "ipvlan", "sriov", "host-device", "bridge", "bond", "vlan", "tap", "ipoib"}
}

// DefaultEnforcedBy returns the types of CNI plugins whose networks are isolated by the implementation that makes them, each as
// TYPE=NAME. The caller may change the slice.
func DefaultEnforcedBy() []string { return []string{"ovn-k8s-cni-overlay=OVN-Kubernetes"} }

// Key is the namespace and name of an object. For a Namespace the namespace is empty.
type Key = types.NamespacedName

// PodID identifies a pod: a later pod with the same name has another UID.
// Deleting and creating a pod, as a StatefulSet does, makes another pod with the same Key.
type PodID struct {
	Key
	UID types.UID
}

// comparePodIDs orders pods by namespace, name and UID.
func comparePodIDs(a, b PodID) int {
	return cmp.Or(policy.CompareKeys(a.Key, b.Key), cmp.Compare(a.UID, b.UID))
}

// Cache is the live state. All methods may be called concurrently. The lock mu guards everything below it, and
// everything that is reachable from there, except the members of groups, which have locks of their own. Locks are taken
// in this order: target.planning, mu, group.content, group.changes.
type Cache struct {
	options Options
	node    string
	limits  *policy.Limits
	plugins map[string]bool // set of Options.NetworkPlugins
	common  commonTables    // chains and sets that all pods share
	seed    maphash.Seed    // for hashes that tenants cannot predict

	mu     sync.Mutex
	locked time.Time // when the lock was taken, for LockHeld

	pods       map[Key]*pod // pods from the API server that have interfaces or are local; not announced pods
	namespaces map[string]*namespace
	networks   map[Key]*network // networks that anything refers to
	policies   map[Key]*installed
	sandboxes  map[types.UID]Sandbox
	labels     labelindex.Index[*scope] // scopes with a selector of namespaces, to find the scopes that contain a namespace

	targets     map[PodID]*target             // local pods, announced pods included
	byUID       map[types.UID]*target         // the same, by UID
	scopes      map[policy.Scope]*scope       // scopes of active groups
	chains      map[chainKey]*policyChain     // chains that plans use
	groups      map[string]*group             // active groups, by name
	networkSets map[policy.Digest]*networkSet // sets of networks of active groups
	ports       map[string]*portList          // sets of ports that chains use, by name
	dirty       map[PodID]struct{}            // local pods whose table may have changed since TakeDirty
	retired     map[string][]*group           // groups without users that pods still list, by the namespace of the last user
	refetch     map[Key]struct{}              // policies to read again: their rules were dropped for a limit, and would fit now

	wanted       int // items of all policies, of each namespace at most as many as its limit
	withPolicies int // namespaces with policies

	members    int // shares in all groups
	withGroups int // namespaces whose policies use groups

	lastID  uint64 // last ID of a group or scope
	tick    uint64 // mark of the last walk, see next
	counts  counts
	scratch scratch
}

// scratch has slices that every event uses again, so that an event need not allocate. The cache's lock guards them.
type scratch struct {
	groups        []*group
	entries       []*peerEntry
	before, after []share
}

// New returns an empty cache.
// The plugins, the limits and the common chains follow from the options, so they are made once.
func New(o Options) *Cache {
	if o.Limits == (policy.Limits{}) {
		o.Limits = policy.DefaultLimits()
	}
	if o.split == (splitBounds{}) {
		o.split = defaultSplit
	}
	c := &Cache{
		options:     o,
		node:        o.Node,
		plugins:     map[string]bool{},
		common:      commonParts(o),
		seed:        maphash.MakeSeed(),
		pods:        map[Key]*pod{},
		namespaces:  map[string]*namespace{},
		networks:    map[Key]*network{},
		policies:    map[Key]*installed{},
		sandboxes:   map[types.UID]Sandbox{},
		targets:     map[PodID]*target{},
		byUID:       map[types.UID]*target{},
		scopes:      map[policy.Scope]*scope{},
		chains:      map[chainKey]*policyChain{},
		groups:      map[string]*group{},
		networkSets: map[policy.Digest]*networkSet{},
		ports:       map[string]*portList{},
		dirty:       map[PodID]struct{}{},
		retired:     map[string][]*group{},
		refetch:     map[Key]struct{}{},
	}
	c.limits = &c.options.Limits
	for _, p := range o.NetworkPlugins {
		c.plugins[p] = true
	}
	return c
}

// Limits returns the limits in force. Policies must be compiled with the same limits.
// The caller must not change them.
func (c *Cache) Limits() *policy.Limits { return c.limits }

// lock takes the lock of the cache.
// A method that takes it must release it by unlock, so that the time is reported.
func (c *Cache) lock() {
	c.mu.Lock()
	if c.options.LockHeld != nil {
		c.locked = time.Now()
	}
}

// unlock releases the lock of the cache, and then reports the time that it was held.
func (c *Cache) unlock() {
	held := time.Duration(0)
	if c.options.LockHeld != nil {
		held = time.Since(c.locked)
	}
	c.mu.Unlock()
	if c.options.LockHeld != nil {
		c.options.LockHeld(held)
	}
}

// slice releases the lock at intervals during a walk over many items, so that events wait only briefly. The walk must
// cope with changes of the state between its steps.
// At the end of the walk the caller holds the lock, as at its start.
type slice struct {
	cache *Cache
	keep  bool      // keep the lock to the end of the walk
	steps int       // steps so far
	since time.Time // when the lock was last taken or kept, as of a look at the clock
}

// A walk looks at the clock after some steps, and releases the lock after a while. No step takes longer than some
// hundred microseconds. A look at the clock at each step would cost more than most steps.
const (
	sliceSteps = 8
	sliceTime  = 300 * time.Microsecond
)

// step counts a step of the walk. The state may have changed when it returns, unless keep is set.
// The first step looks at the clock, then every eighth.
func (s *slice) step() {
	s.steps++
	if s.keep || s.steps%sliceSteps != 1 {
		return
	}
	switch now := time.Now(); {
	case s.since.IsZero():
		s.since = now
	case now.Sub(s.since) > sliceTime:
		s.cache.unlock()
		s.cache.lock()
		s.since = time.Now()
	}
}

// TakeDirty returns the local pods whose table may have changed since the last call, sorted, and forgets them. Pods that
// are gone, or no longer local, are among them. The caller plans each pod later and sees every change up to then, so those
// changes are not reported twice.
// The result is nil if no pod is dirty.
func (c *Cache) TakeDirty() []PodID {
	c.lock()
	defer c.unlock()
	if len(c.dirty) == 0 {
		return nil
	}
	pods := make([]PodID, 0, len(c.dirty))
	for p := range c.dirty {
		pods = append(pods, p)
	}
	clear(c.dirty)
	slices.SortFunc(pods, comparePodIDs)
	return pods
}

// TakeRefetch returns the policies that the caller must read and upsert again, and forgets them. Their rules were dropped
// while their namespace exceeded a limit.
// The order is random.
func (c *Cache) TakeRefetch() []Key {
	c.lock()
	defer c.unlock()
	if len(c.refetch) == 0 {
		return nil
	}
	var keys []Key
	for k := range c.refetch {
		keys = append(keys, k)
	}
	clear(c.refetch)
	return keys
}

// next starts a walk and returns its mark: no group and no target carries this mark yet.
// A walk that finds an object again sees its own mark there.
func (c *Cache) next() uint64 {
	c.tick++
	return c.tick
}
