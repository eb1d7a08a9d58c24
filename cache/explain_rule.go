package cache

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// explainRule says whether a rule allows a packet. It follows addRules: a rule by peers and port numbers, and one by the
// named ports of the peers.
func (c *Cache) explainRule(pod *pod, q Query, s *section, r rule) RuleExplanation {
	out := RuleExplanation{Rule: ruleName(s.direction, r.index)}
	hasPeer, peers := true, "everyone is a peer"
	if !r.everyone {
		hasPeer, peers = c.explainPeers(q, r.peers)
	}
	ports := r.portsFor(s.direction, pod.ports)
	hasPort, port := true, "any protocol and port is allowed"
	if !r.anyPort {
		hasPort = ports.Contains(q.Protocol, q.Port)
		port = r.explainPorts(q, s.direction, pod.ports, hasPort)
	}
	switch {
	case hasPeer && hasPort:
		out.Allows, out.Reason = true, peers+"; "+port
	case r.named != nil && c.isIn(q, r.named):
		out.Allows = true
		out.Reason = fmt.Sprintf("%s has %s under a name in [%s]", q.Remote, q.packet(), nameList(r.names, nil))
	case hasPeer:
		out.Reason = port
	case hasPort:
		out.Reason = peers
	default:
		out.Reason = peers + "; " + port
	}
	return out
}

// isIn says whether the remote end is in a group. One that no table needs now is there as long as it is looked at.
func (c *Cache) isIn(q Query, spec *groupSpec) bool {
	user := &policyChain{}
	g := c.acquireGroup(spec, user)
	defer c.releaseGroup(g, user)
	return g.has(sets.Endpoint{Addr: q.Remote, Proto: q.Protocol, Port: q.Port})
}

func (c *Cache) explainPeers(q Query, spec *groupSpec) (bool, string) {
	if c.isIn(q, spec) {
		return true, fmt.Sprintf("peers include %s (%s)", q.Remote, spec.words())
	}
	text := fmt.Sprintf("peers do not include %s (%s)", q.Remote, spec.words())
	for _, b := range spec.blocks {
		for _, except := range b.except {
			if except.Contains(q.Remote) {
				text += fmt.Sprintf(": %s is excepted from %s", except, b.prefix)
			}
		}
	}
	if networks := c.elsewhere(q.Remote, spec); len(networks) > 0 {
		text += ": a selected pod has it on " + strings.Join(networks, ", ") + ", which the policy is not for"
	}
	return false, text
}

// elsewhere returns the networks, none of them the group's, on which pods that the group selects have an address.
func (c *Cache) elsewhere(addr netip.Addr, spec *groupSpec) []string {
	var found []string
	for _, p := range c.pods {
		for _, a := range p.attachments {
			if slices.Contains(a.addrs, addr) && !slices.Contains(spec.networks, a.network.key) &&
				slices.ContainsFunc(spec.peers, func(peer peer) bool { return peer.selects(p) }) {
				found = append(found, a.network.key.String())
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// selects says whether a peer would select a pod on whatever network.
func (p peer) selects(pod *pod) bool {
	s := scope{key: p.scope, namespaces: p.namespaces}
	return s.selects(pod.namespace) && p.pods.matches(&pod.labels)
}

// explainPorts says that the packet's port is in the rule's list, or is not.
func (r rule) explainPorts(q Query, d direction, pod []namedPort, has bool) string {
	var list []string
	for p := range r.ports.Ranges() {
		list = append(list, portRangeText(p))
	}
	if len(r.names) > 0 {
		list = append(list, nameList(r.names, func(n portName) string {
			if d == egress {
				return "of the peer"
			}
			return resolution(n, pod)
		}))
	}
	is := "is in"
	if !has {
		is = "is not in"
	}
	packet := q.packet()
	if strings.Contains(packet, "/") {
		packet = "port " + packet
	}
	return fmt.Sprintf("%s %s [%s]", packet, is, strings.Join(list, ", "))
}

// portRangeText is "80/tcp", or "tcp" for all ports.
func portRangeText(p sets.PortRange) string {
	if p.From == 0 && p.To == maxPort {
		return protocolName(p.Proto)
	}
	return p.String()
}

// resolution is what a name stands for in the pod that the rule protects.
func resolution(n portName, pod []namedPort) string {
	var numbers []string
	for _, p := range pod {
		if p.portName == n {
			numbers = append(numbers, fmt.Sprint(p.number))
		}
	}
	return listOr(numbers, "no port of the pod")
}

func nameList(names []portName, note func(portName) string) string {
	texts := make([]string, 0, len(names))
	for _, n := range names {
		text := n.name + "/" + protocolName(n.proto)
		if note != nil {
			text += " (" + note(n) + ")"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}
