package cache

import (
	"encoding/json"
	"errors"
	"slices"

	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
)

// UpsertNAD takes a NetworkAttachmentDefinition as it is now. One whose plugin type cannot be read leaves in force what
// is: the last type known while pods are attached, else its network is isolated where policies say so.
func (c *Cache) UpsertNAD(nad *netv1.NetworkAttachmentDefinition) []Problem {
	var ps problems
	pluginType, err := parsePluginType(nad.Spec.Config)
	if err != nil {
		ps.add("spec.config", "the plugin type cannot be read, so policies apply as before: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.network(Key{Namespace: nad.Namespace, Name: nad.Name})
	n.defined = true
	c.setPluginType(n, pluginType)
	return ps
}

// DeleteNAD says that there is no such NetworkAttachmentDefinition.
func (c *Cache) DeleteNAD(key Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.networks[key]; n != nil && n.defined {
		n.defined = false
		c.setPluginType(n, "")
	}
}

// setPluginType takes what the definition says now, empty when it says nothing, and marks the local pods for which that
// makes a difference.
func (c *Cache) setPluginType(n *network, pluginType string) {
	isolated := c.isolates(n)
	n.readable = pluginType != ""
	if n.readable {
		n.pluginType = pluginType
	}
	c.dropNetwork(n)
	if c.isolates(n) == isolated {
		return
	}
	for _, t := range c.targets {
		if t.pod.isOn(n) && slices.ContainsFunc(t.selected, func(p *policy) bool { return slices.Contains(p.networks, n) }) {
			c.markStale(t)
		}
	}
}

// parsePluginType returns the type of a CNI configuration, which is that of the first plugin of a chain. An empty
// configuration is legal, Multus then takes one from the node's disk: its type is not known.
func parsePluginType(config string) (string, error) {
	if config == "" {
		return "", nil
	}
	var conf struct {
		Type    string `json:"type"`
		Plugins []struct {
			Type string `json:"type"`
		} `json:"plugins"`
	}
	if err := json.Unmarshal([]byte(config), &conf); err != nil {
		return "", err
	}
	if conf.Type == "" && len(conf.Plugins) > 0 {
		conf.Type = conf.Plugins[0].Type
	}
	if conf.Type == "" {
		return "", errors.New("it has no type")
	}
	return conf.Type, nil
}
