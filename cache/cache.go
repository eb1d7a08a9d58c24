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

// Options configure a Cache.
type Options struct {
	Node           string   // pods on this node are local; empty: pods of all nodes are read like local ones
	NetworkPlugins []string // plugin types whose networks policies isolate

	// UnenforceableRuntimes are patterns (path.Match) for the names of RuntimeClasses, and of handlers of the container runtime,
	// whose pods have a network stack of their own.
	UnenforceableRuntimes []string

	AcceptICMP   bool // ICMP passes on isolated interfaces
	AcceptICMPv6 bool // ICMPv6 passes on isolated interfaces, not only the messages that IPv6 needs on a link

	// RevokeEstablished makes every packet of a connection face the policies, not only its first.
	RevokeEstablished bool

	PolicyCounters bool // rules of policies count the packets that they accept

	Bridge BridgeSupport // of the kernel

	Ingress, Egress Common

	Limits policy.Limits // zero: the defaults

	split splitBounds // zero: the defaults

	// LockHeld is told how long the lock was held, each time. It must be fast. May be nil.
	LockHeld func(time.Duration)
}

// Key is the namespace and name of an object.
type Key = types.NamespacedName

// PodID identifies one pod: a later pod of the same name has another UID.
type PodID struct {
	Key
	UID types.UID
}

func comparePodIDs(a, b PodID) int {
	return cmp.Or(policy.CompareKeys(a.Key, b.Key), cmp.Compare(a.UID, b.UID))
}

// Cache is the live state. All methods may be called concurrently.
type Cache struct {
	options Options
	node    string
	limits  *policy.Limits
	plugins map[string]bool
	common  commonTables
	seed    maphash.Seed

	mu     sync.Mutex
	locked time.Time

	pods       map[Key]*pod // known from the API server
	namespaces map[string]*namespace
	networks   map[Key]*network
	policies   map[Key]*installed
	sandboxes  map[types.UID]Sandbox
	labels     labelindex.Index[*scope] // scopes by selector, to find those that contain a namespace

	targets     map[PodID]*target // local pods
	byUID       map[types.UID]*target
	scopes      map[policy.Scope]*scope
	chains      map[chainKey]*policyChain
	groups      map[string]*group // by name
	networkSets map[policy.Digest]*networkSet
	ports       map[string]*portList
	dirty       map[PodID]struct{}
	retired     map[string][]*group // groups without users that pods still list, by the namespace of the last user
	refetch     map[Key]struct{}    // policies to read again: their rules were dropped for a limit, and would fit now

	wanted       int // items of all policies, of each namespace at most as many as its limit
	withPolicies int // namespaces with policies

	members    int // shares in all groups
	withGroups int // namespaces whose policies use groups

	lastID  uint64 // of groups and scopes
	tick    uint64 // marks the groups and targets that a walk has seen
	counts  counts
	scratch scratch
}

// scratch is memory that one event uses and the next event uses again.
type scratch struct {
	groups        []*group
	entries       []*peerEntry
	before, after []share
}

// New returns an empty cache.
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

// Limits returns the limits in force. Policies must be compiled with the same.
func (c *Cache) Limits() *policy.Limits { return c.limits }

func (c *Cache) lock() {
	c.mu.Lock()
	if c.options.LockHeld != nil {
		c.locked = time.Now()
	}
}

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

// slice lets others have the lock now and then during a walk over many items.
type slice struct {
	cache *Cache
	keep  bool // the lock, to the end of the walk
	steps int
	since time.Time
}

// A walk looks at the clock after some steps, and lets go of the lock after a while. No step takes longer than some
// hundred microseconds.
const (
	sliceSteps = 8
	sliceTime  = 300 * time.Microsecond
)

// step counts one step. The state may have changed after it.
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

// next starts a walk: no group and no target carries the mark that it returns.
func (c *Cache) next() uint64 {
	c.tick++
	return c.tick
}
