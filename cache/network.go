package cache

// network is what interfaces attach to: a NetworkAttachmentDefinition or, where a policy names one, a network of
// another kind. It exists while anything refers to it.
type network struct {
	key Key

	defined    bool   // its NetworkAttachmentDefinition exists
	readable   bool   // pluginType is what its NetworkAttachmentDefinition says now
	pluginType string // empty: not known

	pods     map[*namespace]map[*pod]struct{} // attached, by namespace
	attached int                              // number of pods
	refs     int                              // policies and active groups that name it
}

// network returns the network, and makes it when there is none. The caller refers to it, or calls dropNetwork.
func (c *Cache) network(key Key) *network {
	n := c.networks[key]
	if n == nil {
		n = &network{key: key, pods: map[*namespace]map[*pod]struct{}{}}
		c.networks[key] = n
	}
	return n
}

// dropNetwork forgets a network that nothing refers to, and a plugin type that is only remembered for the sake of the
// pods attached.
func (c *Cache) dropNetwork(n *network) {
	if n.attached == 0 && !n.readable {
		n.pluginType = ""
	}
	if n.attached == 0 && n.refs == 0 && !n.defined {
		delete(c.networks, n.key)
	}
}

// acquireNetworks returns the networks and refers to each.
func (c *Cache) acquireNetworks(keys []Key) []*network {
	out := make([]*network, 0, len(keys))
	for _, k := range keys {
		n := c.network(k)
		n.refs++
		out = append(out, n)
	}
	return out
}

func (c *Cache) releaseNetworks(networks []*network) {
	for _, n := range networks {
		n.refs--
		c.dropNetwork(n)
	}
}

// isolates says whether policies isolate interfaces of the network. One whose type is not known is: to leave it open
// would be to guess.
func (c *Cache) isolates(n *network) bool { return n.pluginType == "" || c.plugins[n.pluginType] }

// attach files a pod under a network, once however many of its interfaces are on it.
func (n *network) attach(p *pod) {
	pods := n.pods[p.namespace]
	if pods == nil {
		pods = map[*pod]struct{}{}
		n.pods[p.namespace] = pods
	}
	if _, ok := pods[p]; !ok {
		pods[p] = struct{}{}
		n.attached++
	}
}

func (n *network) detach(p *pod) {
	pods := n.pods[p.namespace]
	if _, ok := pods[p]; !ok {
		return
	}
	delete(pods, p)
	n.attached--
	if len(pods) == 0 {
		delete(n.pods, p.namespace)
	}
}
