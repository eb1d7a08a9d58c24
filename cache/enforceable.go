package cache

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// The kernel does not show every packet of a pod to the rules in the pod's network namespace. This file finds the
// interfaces with hidden packets, as far as the API objects tell. Their rules are planned like all others, and hold for
// the packets that the kernel shows; the policies get a Shortfall.

// DefaultUnenforceableRuntimes returns the usual names of the runtimes whose pods have a network stack of their own.
func DefaultUnenforceableRuntimes() []string { return []string{"kata*", "gvisor", "runsc*"} }

// CheckRuntimes returns an error if a pattern for names of runtimes is malformed.
// The error names the pattern.
func CheckRuntimes(patterns []string) error {
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("%q: %w", p, err)
		}
	}
	return nil
}

// userspacePlugins are the plugin types that hand the packets of a network to a program or a virtual machine in the pod.
// The kernel's network stack in the namespace does not process these packets, so no hook sees them.
var userspacePlugins = []string{"macvtap", "userspace", "vhostuser"}

// hiding describes the packets of an interface that the kernel does not show to the rules. The zero value means that it
// shows all packets.
type hiding struct {
	why         string // reason, for users; empty: nothing is hidden
	ingressOnly bool   // the kernel shows the packets that the pod sends, so the rules for egress hold
}

// in returns the reason why policies cannot be enforced in a direction; empty: they can.
func (h hiding) in(d engine.Direction) string {
	if h.ingressOnly && d == engine.Egress {
		return ""
	}
	return h.why
}

// orWorse returns the hiding of an interface that both apply to: all hidden packets count more than hidden ingress.
func (h hiding) orWorse(other hiding) hiding {
	if h.why == "" || h.ingressOnly && other.why != "" {
		return other
	}
	return h
}

// hiding returns the hiding of the interfaces of a network with this configuration.
// conf is of the first plugin, which makes the interface.
func (conf *pluginConfig) hiding() hiding {
	switch {
	case conf.Type == "ipvlan" && conf.mode() == "l3s":
		return hiding{ingressOnly: true, why: "ipvlan in mode l3s delivers packets from outside past the rules of the pod, " +
			"so ingress is open, and isolated egress drops the replies to them"}
	case slices.Contains(userspacePlugins, conf.Type):
		return hiding{why: "the plugin type " + conf.Type + " hands packets to a program in the pod, past the network stack of the kernel"}
	}
	return hiding{}
}

// editedLater is the end of a reason that follows from a definition of a network, if an earlier definition may have
// made the interface.
const editedLater = "; the definition was edited after the pod was created, so the interface may be of an earlier kind"

// hides returns the hiding of a pod's interfaces on the network.
func (n *network) hides(p *pod) hiding {
	h := n.hidden
	if h.why != "" && n.isYoungerThan(p) {
		h.why += editedLater
	}
	return h
}

// mode returns the mode of ipvlan; empty: the default, or unreadable.
func (conf *pluginConfig) mode() (mode string) {
	if json.Unmarshal(conf.Mode, &mode) != nil {
		return ""
	}
	return mode
}

// bondPorts returns the interfaces of a pod that a bond takes as its ports, sorted. Links of the node that a bond takes into
// the pod are on no network.
// At most maxBondPorts are returned.
func (conf *pluginConfig) bondPorts() (ports []string) {
	if conf.Type != "bond" || string(conf.LinksInContainer) != "true" {
		return nil
	}
	var links []struct {
		Name string `json:"name"`
	}
	if json.Unmarshal(conf.Links, &links) != nil {
		return nil // the plugin refuses the configuration, so no pod has the bond
	}
	for _, l := range links {
		if isInterfaceName(l.Name) && len(ports) < maxBondPorts {
			ports = append(ports, l.Name)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// maxBondPorts bounds the memory and time that a definition costs. A pod has fewer interfaces.
const maxBondPorts = 64

// inBond returns the hiding of an interface that is a port of a bond in the pod: the packets belong to the bond.
func (s *podState) inBond(p *pod, iface string) hiding {
	for _, bond := range s.attachments {
		if _, found := slices.BinarySearch(bond.network.bondPorts, iface); found {
			why := fmt.Sprintf("it is a port of the bond %s, where the kernel shows all its packets, so only policies for %s have an effect",
				bond.iface, bond.network.key)
			if bond.network.isYoungerThan(p) {
				why += editedLater
			}
			return hiding{why: why}
		}
	}
	return hiding{}
}

// caveat returns the reason why it is unknown whether the kernel hides packets of the pod's interfaces on the network;
// empty: the definition tells.
func (n *network) caveat(p *pod) string {
	switch {
	case n.isYoungerThan(p):
		return fmt.Sprintf("the definition of %s was edited after the pod was created, so the kind of the interface is unknown: "+
			"the packet passes if policies cannot be enforced on it", n.key)
	case n.PluginType == "":
		return fmt.Sprintf("%s has no definition that can be read here, so the kind of the interface is unknown: "+
			"the packet passes if policies cannot be enforced on it", n.key)
	}
	return ""
}

// updateRuntime notes whether policies can be enforced in a pod, as far as its RuntimeClass and its sandbox tell.
// Both are known at different times: the RuntimeClass from the API server, the handler from the sandbox.
func (c *Cache) updateRuntime(t *target) {
	why := ""
	for _, runtime := range []string{t.runtimeClass, c.sandboxOf(t.pod).Handler} {
		isListed := func(pattern string) bool {
			matches, err := path.Match(pattern, runtime)
			return err == nil && matches
		}
		if slices.ContainsFunc(c.options.UnenforceableRuntimes, isListed) {
			why = "pods of the runtime " + runtime + " have a network stack of their own, past the network stack of the kernel"
		}
	}
	if t.unenforceable != why {
		t.unenforceable = why
		if t.selected.count > 0 {
			c.markStale(t)
		}
	}
}

// unenforceable is an interface that a policy isolates, although the kernel does not show all its packets to the rules.
type unenforceable struct {
	policy  *policy.Policy
	network Key
	iface   string
	why     string
}

// unenforceable returns the interfaces that policies isolate although packets are hidden, at most policy.MaxProblems.
func (v *view) unenforceable() (out []unenforceable) {
	for _, a := range v.attachments {
		if !a.isolated || a.hidden.why == "" {
			continue
		}
		for _, p := range v.selected {
			if p.IsFor(a.network) && len(out) < policy.MaxProblems {
				out = append(out, unenforceable{p.Policy, a.network, a.iface, a.hidden.why})
			}
		}
	}
	return out
}

// problem returns the Problem of the policy.
// Its field is the annotation policy-for, since the policy is for a network that cannot be enforced.
func (u unenforceable) problem() policy.Problem {
	return policy.Problem{
		Field:   policy.ForField,
		Message: fmt.Sprintf("policies cannot be enforced on interface %s of network %s: %s", u.iface, u.network, u.why),
	}
}
