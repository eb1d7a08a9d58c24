package cache

import (
	"encoding/json"
	"errors"
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// NAD is the part of a NetworkAttachmentDefinition that policies depend on, see [NewNAD].
// Since is set by the informer, from the object's times.
type NAD struct {
	Key
	definition
	Since    int64 // pods created before this time may be attached by an earlier definition; seconds since 1970, 0: unknown
	Problems []policy.Problem
}

// definition is the part of a CNI configuration that policies depend on. For a list of plugins, the first plugin makes
// the interface.
type definition struct {
	PluginType string // empty: unknown

	hidden    hiding   // hiding of the interfaces
	bondPorts []string // names of interfaces of a pod that are ports of a bond
}

// NewNAD reads a CNI configuration. An empty configuration is legal: Multus then takes a configuration from the node's
// disk, so the type is unknown. A configuration that cannot be read has an unknown type and a Problem.
func NewNAD(key Key, config string) NAD {
	nad := NAD{Key: key}
	var ps policy.Problems
	conf, err := parseConfig(config)
	if err != nil {
		ps.Add("spec.config", "the plugin type cannot be read, so policies isolate the network: %s", policy.Quote(policy.Words(err)))
	}
	nad.definition = definition{PluginType: conf.Type, hidden: conf.hiding(), bondPorts: conf.bondPorts()}
	nad.Problems = ps.List()
	return nad
}

// pluginConfig is a part of the configuration of a plugin. Fields whose form depends on the type are read later.
type pluginConfig struct {
	Type             string          `json:"type"`
	Mode             json.RawMessage `json:"mode"`             // of ipvlan
	LinksInContainer json.RawMessage `json:"linksInContainer"` // of bond
	Links            json.RawMessage `json:"links"`            // of bond
}

// parseConfig reads the configuration of the first plugin. Without an error, only an empty configuration has no type.
func parseConfig(config string) (pluginConfig, error) {
	if config == "" {
		return pluginConfig{}, nil
	}
	var conf struct {
		pluginConfig
		Plugins []pluginConfig `json:"plugins"`
	}
	if err := json.Unmarshal([]byte(config), &conf); err != nil {
		return pluginConfig{}, err
	}
	first := conf.pluginConfig
	if first.Type == "" && len(conf.Plugins) > 0 {
		first = conf.Plugins[0]
	}
	if first.Type == "" {
		return pluginConfig{}, errors.New("it has no type")
	}
	return first, nil
}

// network is a network that interfaces attach to: a NetworkAttachmentDefinition, or a name in a network status without
// a NetworkAttachmentDefinition. It exists while anything refers to it.
type network struct {
	key Key

	defined bool // its NetworkAttachmentDefinition exists
	definition
	since int64 // see NAD.Since

	pods  map[*pod]struct{} // pods with an interface on the network
	iface string            // name of the interface of the last pod, to share its text
	sets  []*networkSet     // sets of networks of active groups that contain it
}

// network returns the network, and makes it if it does not exist. The caller must refer to it, or call dropNetwork.
// The caller holds the lock.
func (c *Cache) network(key Key) *network {
	n := c.networks[key]
	if n == nil {
		n = &network{key: key, pods: map[*pod]struct{}{}}
		c.networks[key] = n
		c.counts.networks.Add(1)
	}
	return n
}

// dropNetwork forgets a network that nothing refers to.
// The caller holds the lock. It may be called for a network that was dropped already.
func (c *Cache) dropNetwork(n *network) {
	if len(n.pods) == 0 && len(n.sets) == 0 && !n.defined && c.networks[n.key] == n {
		delete(c.networks, n.key)
		c.counts.networks.Add(-1)
	}
}

// isolates reports whether policies isolate the pod's interfaces on the network. They isolate a network of unknown
// type: leaving it open would be a guess. A definition that is edited, or made again, describes only pods that are
// created later: an earlier definition has made the interfaces of the other pods.
func (c *Cache) isolates(n *network, p *pod) bool {
	return n.PluginType == "" || c.plugins[n.PluginType] || n.isYoungerThan(p)
}

// isYoungerThan reports whether the pod may be attached by an earlier definition of the network.
// Times are in whole seconds, as the API server writes them.
func (n *network) isYoungerThan(p *pod) bool { return p.created < n.since }

// UpsertNAD takes a NetworkAttachmentDefinition as it is now.
func (c *Cache) UpsertNAD(nad NAD) {
	// The network may exist already, because a pod or a policy names it.
	c.lock()
	defer c.unlock()
	n := c.network(nad.Key)
	n.defined = true
	c.setDefinition(n, nad.definition, nad.Since)
}

// DeleteNAD removes a NetworkAttachmentDefinition.
func (c *Cache) DeleteNAD(key Key) {
	c.lock()
	defer c.unlock()
	if n := c.networks[key]; n != nil && n.defined {
		n.defined = false
		c.setDefinition(n, definition{}, 0)
		// Without a definition, the type is unknown, so the network is isolated.
		c.dropNetwork(n)
	}
}

// setDefinition replaces the definition of a network, and marks the local pods for which it makes a difference.
// A pod that is not on the network, or that no policy selects, stays as it is.
func (c *Cache) setDefinition(n *network, d definition, since int64) {
	before := *n
	n.definition, n.since = d, since
	// The ports of a bond depend on the age of a pod, like the type.
	sameBond := slices.Equal(before.bondPorts, n.bondPorts) && (len(n.bondPorts) == 0 || before.since == since)
	if sameBond && before.PluginType == n.PluginType && before.since == since && before.hidden == n.hidden {
		return
	}
	for _, t := range c.targets {
		isSame := sameBond && c.isolates(&before, t.pod) == c.isolates(n, t.pod) && before.hides(t.pod) == n.hides(t.pod)
		// A pod that no policy selects has no table, so its plan need not change.
		if t.selected.count > 0 && !isSame && t.pod.isOn(n) {
			c.markStale(t)
		}
	}
}

// NADs returns the keys of the definitions that the cache holds.
// The order is random.
func (c *Cache) NADs() []Key {
	c.lock()
	defer c.unlock()
	var keys []Key
	for key, n := range c.networks {
		if n.defined {
			keys = append(keys, key)
		}
	}
	return keys
}

// networkSet has the networks on which pods are members of a group. Groups with the same networks share it.
// The digest of the sorted names identifies it.
type networkSet struct {
	digest   policy.Digest
	networks []*network
	has      map[*network]struct{}
	refs     int // number of groups that use it
}

// acquireNetworks returns the set of networks of a group. The caller must release it.
// The caller holds the lock.
func (c *Cache) acquireNetworks(g *policy.Group) *networkSet {
	digest := policy.DigestKeys(g.Networks)
	s := c.networkSets[digest]
	if s == nil {
		s = &networkSet{digest: digest, has: make(map[*network]struct{}, len(g.Networks))}
		for _, key := range g.Networks {
			n := c.network(key)
			n.sets = append(n.sets, s)
			s.networks = append(s.networks, n)
			s.has[n] = struct{}{}
		}
		c.networkSets[digest] = s
	}
	s.refs++
	return s
}

// releaseNetworks ends a group's use of a set of networks.
func (c *Cache) releaseNetworks(s *networkSet) {
	if s.refs--; s.refs > 0 {
		return
	}
	delete(c.networkSets, s.digest)
	for _, n := range s.networks {
		n.sets = without(n.sets, s)
		c.dropNetwork(n)
	}
}

// admits reports whether a pod with these attachments is on any of the networks.
func (s *networkSet) admits(attachments []attachment) bool {
	for i := range attachments {
		if _, ok := s.has[attachments[i].network]; ok {
			return true
		}
	}
	return false
}

// attached returns the number of pods on the networks. A pod on two of them counts twice.
func (s *networkSet) attached() (n int) {
	for _, network := range s.networks {
		n += len(network.pods)
	}
	return n
}
