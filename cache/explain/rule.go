package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// explainRule returns whether a rule allows the packet, and why. It follows policy.Section.Build, which makes a rule by
// peers and port numbers, and a rule by the named ports of the peers.
// Reason tells the conditions that fail, or both conditions that hold.
func (e *explainer) explainRule(r *policy.Rule) RuleExplanation {
	q := e.query
	out := RuleExplanation{Rule: ruleName(q.Direction, r.Index)}
	if r.AllowsNobody() {
		out.Reason = "allows nobody: its peers or its ports are invalid, or exceed a limit"
		return out
	}
	hasPeer, peers := true, "everyone is a peer"
	if !r.Everyone {
		hasPeer, peers = e.explainPeers(r.Peers)
	}
	hasPort, port := true, "any protocol and port is allowed"
	if !r.AnyPort {
		hasPort = r.PortsFor(q.Direction, e.pod.Ports).Contains(q.Protocol, q.Port)
		port = e.explainPorts(r, hasPort)
	}
	switch {
	case hasPeer && hasPort:
		out.Allows, out.Reason = true, peers+"; "+port
	// A named port belongs to a peer, so peer and port are a single condition.
	case r.Named != nil && e.isIn(r.Named):
		out.Allows = true
		out.Reason = fmt.Sprintf("%s has %s under a name in [%s]", q.Remote, q.packet(), nameList(r.Names, nil))
	case hasPeer:
		out.Reason = port
	case hasPort:
		out.Reason = peers
	default:
		out.Reason = peers + "; " + port
	}
	return out
}

// isIn reports whether the remote end is in a group.
// The members come from the cache, as the kernel has them, and not from a second reading of the policy.
// The members are those at the time of the call.
func (e *explainer) isIn(spec *policy.Group) bool {
	addrs, endpoints := e.cache.Members(spec)
	if spec.Kind == engine.EndpointGroup {
		return endpoints.Contains(sets.Endpoint{Addr: e.query.Remote, Proto: e.query.Protocol, Port: e.query.Port})
	}
	return addrs.Contains(e.query.Remote)
}

// explainPeers returns whether the remote end is a peer, and why. For an address that is not, it looks for the usual
// mistakes: an except, or a pod that has the address on another network.
// spec is not nil: a rule without peers is explained before.
func (e *explainer) explainPeers(spec *policy.Group) (bool, string) {
	remote := e.query.Remote
	if e.isIn(spec) {
		return true, fmt.Sprintf("peers include %s (%s)", remote, spec.Words())
	}
	text := fmt.Sprintf("peers do not include %s (%s)", remote, spec.Words())
	for _, b := range spec.Blocks {
		for _, except := range b.Except {
			if except.Contains(remote) {
				text += fmt.Sprintf(": %s is excepted from %s", except, b.Prefix)
			}
		}
	}
	// A pod that the peers select has the address on a network for which the policy is not.
	if networks := e.elsewhere(spec); len(networks) > 0 {
		text += ": a selected pod has it on " + strings.Join(networks, ", ") + ", which the policy is not for"
	}
	return false, text
}

// elsewhere returns the networks, none of them the group's, on which pods that the group selects have the remote address.
// It helps a user who gave a policy for a network other than that of the pod's address.
func (e *explainer) elsewhere(spec *policy.Group) []string {
	var found []string
	for _, p := range e.holders {
		for _, a := range p.Has(e.query.Remote) {
			if !slices.Contains(spec.Networks, a.Network) && slices.ContainsFunc(spec.Peers, p.IsSelectedBy) {
				found = append(found, a.Network.String())
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// explainPorts returns a text that says whether the packet's port is in the rule's list.
func (e *explainer) explainPorts(r *policy.Rule, has bool) string {
	var list []string
	for p := range r.Ports.Ranges() {
		list = append(list, portRangeText(p))
	}
	if len(r.Names) > 0 {
		list = append(list, nameList(r.Names, func(n policy.PortName) string {
			if e.query.Direction == engine.Egress {
				return "of the peer"
			}
			return resolution(n, e.pod.Ports)
		}))
	}
	is := "is in"
	if !has {
		is = "is not in"
	}
	packet := e.query.packet()
	if strings.Contains(packet, "/") {
		packet = "port " + packet
	}
	return fmt.Sprintf("%s %s [%s]", packet, is, strings.Join(list, ", "))
}

// portRangeText returns "80/tcp", or "tcp" for all ports.
func portRangeText(p sets.PortRange) string {
	if p.From == 0 && p.To == policy.MaxPort {
		return policy.ProtocolName(p.Proto)
	}
	return p.String()
}

// resolution returns the ports that a name stands for in the pod that the rule protects.
// A name may stand for several numbers, if containers of the pod give it to different ports.
func resolution(n policy.PortName, pod []policy.NamedPort) string {
	var numbers []string
	for _, p := range pod {
		if p.PortName == n {
			numbers = append(numbers, fmt.Sprint(p.Number))
		}
	}
	return listOr(numbers, "no port of the pod")
}

// nameList returns the names with their protocols, each with a note if note is not nil.
// A name stands there as "http/tcp".
func nameList(names []policy.PortName, note func(policy.PortName) string) string {
	texts := make([]string, 0, len(names))
	for _, n := range names {
		text := n.Name + "/" + policy.ProtocolName(n.Proto)
		if note != nil {
			text += " (" + note(n) + ")"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}
