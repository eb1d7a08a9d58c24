package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// This file makes the names of chains and sets that depend on a policy, an interface, a direction or a family, and
// parses the names of chains. Package expr/custom names the sets of custom rules. Scripts of users look for these
// names, and a restarted agent finds its table by them, so the form of a name must never change.

// RepliesPrefix starts the name of a chain that judges reply packets. The rest of the name is the chain that judges the
// original direction.
const RepliesPrefix = "replies-"

// Parts of names.
const (
	commonPrefix = "common-"
	customPrefix = "custom-"
	selfPrefix   = "self-"
	policyInfix  = "policy-" // between the direction and the ID
	portsInfix   = "ports-"  // between the direction and the ID
)

// InterfaceChain returns the name of the chain that isolates an interface in a direction. A character that nft does
// not accept in an identifier becomes an underscore, and a hash of the interface's name follows. The result is then
// longer than the name of any interface, so two interfaces never share a chain.
func InterfaceChain(d Direction, iface string) string { return d.String() + "-" + spell(iface) }

// spell returns the part of a chain's name that stands for an interface.
// An example: "net:1" becomes "net_1-" and 16 hex digits.
func spell(iface string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("_.-", r):
			return r
		}
		return '_'
	}, iface)
	if name != iface {
		sum := sha256.Sum256([]byte(iface))
		name += "-" + hex.EncodeToString(sum[:8])
	}
	return name
}

// BridgePort returns the name that KubeVirt gives to a pod's interface when it puts the interface into the bridge of a virtual
// machine: "net1-nic" for net1, and "HASH-nic" for podHASH (GenerateNewBridgedVmiInterfaceName in pkg/network/link and
// HashedIfacePrefix in pkg/network/namescheme of kubevirt/kubevirt).
func BridgePort(iface string) string { return strings.TrimPrefix(iface, "pod") + "-nic" }

// PolicyChain returns the name of the chain with the rules of a policy in a direction. The ID must be 16 lower-case hex
// digits: ParseChain tells the chain of a policy from the chain of an interface named "policy-…" by them.
func PolicyChain(d Direction, id string) string { return d.String() + "-" + policyInfix + id }

// PortsChain returns the name of the chain that leads to the policies of an interface whose rules have the same list of ports.
// The ID is that of the list's set (PortSet), and must be 16 lower-case hex digits, as for PolicyChain.
func PortsChain(d Direction, iface, id string) string {
	return d.String() + "-" + portsInfix + id + "-" + spell(iface)
}

// CommonChain returns the name of the chain that every isolated interface consults before its policies.
// An example is common-ingress.
func CommonChain(d Direction) string { return commonPrefix + d.String() }

// SelfChain returns the name of the chain for packets that no policy allows, and that the pod sends to itself.
// An example is self-egress.
func SelfChain(d Direction) string { return selfPrefix + d.String() }

// CustomChain returns the name of the chain with the user's custom rules for a family, such as custom-v4-ingress.
func CustomChain(d Direction, f sets.Family) string {
	return customPrefix + f.String() + "-" + d.String()
}

// GroupKind is the kind of a peer group.
type GroupKind string

// The kinds of peer groups: addresses (a set of kind Addrs), or the named ports of pods (a set of kind Endpoints).
const (
	PeerGroup     GroupKind = "peers"
	EndpointGroup GroupKind = "endpoints"
)

// GroupSet returns the name of the set with the members of a peer group in a family, such as peers-2d3e51bfc748c53a-v4.
// The ID is a hash of everything that determines the members.
func GroupSet(kind GroupKind, id string, f sets.Family) string {
	return string(kind) + "-" + id + "-" + f.String()
}

// podsSuffix ends the name of the second set of a large peer group.
const podsSuffix = "-pods"

// PodsSet returns the name of the hash set with the addresses of pods in a large peer group, whose interval set has the given
// name. The interval set then holds only the group's ipBlocks.
func PodsSet(groupSet string) string { return groupSet + podsSuffix }

// PortSet returns the name of the set with a list of ports, such as ports-48711e9b83975d21. The ID is a hash of the
// ports.
func PortSet(id string) string { return "ports-" + id }

// AddressField is the source or the destination of a packet.
type AddressField string

// The two addresses of a packet.
const (
	SourceField      AddressField = "source"
	DestinationField AddressField = "destination"
)

// ServedSet is the name of the set of kind Served.
const ServedSet = "served-udp"

// AllowSet returns the name of the set with the prefixes that flags allow in a direction, such as
// allow-ingress-source-v4.
func AllowSet(d Direction, field AddressField, f sets.Family) string {
	return "allow-" + d.String() + "-" + string(field) + "-" + f.String()
}

// ChainKind is the purpose of a chain.
type ChainKind uint8

// The kinds of chains, see docs/nftables.md.
const (
	KindBase      ChainKind = iota // hangs at a hook and sends the packets of isolated interfaces to their chains
	KindInterface                  // isolates an interface
	KindPorts                      // leads the packets of an interface with some ports to the policies that have these ports
	KindPolicy                     // accepts the packets that a policy allows
	KindCommon                     // accepts the packets that pass on every isolated interface
	KindSelf                       // accepts the packets that the pod sends to itself
	KindCustom                     // holds the user's custom rules
)

// ChainName is the parsed name of a chain.
type ChainName struct {
	Kind      ChainKind
	Direction Direction   // direction of the traffic; with Replies, of the traffic that the judged packets answer
	Replies   bool        // the chain judges reply packets
	Family    sets.Family // of a custom chain, else 0
	ID        string      // ID of a policy, or the interface's part of the name as InterfaceChain spells it, or a hook; else empty
	Ports     string      // of a ports chain: the ID of the set, else empty
}

// String returns the name of the chain. ParseChain(n.String()) returns n.
func (n ChainName) String() string {
	prefix := ""
	if n.Replies {
		prefix = RepliesPrefix
	}
	switch n.Kind {
	case KindInterface:
		return prefix + n.Direction.String() + "-" + n.ID
	case KindPorts:
		return prefix + n.Direction.String() + "-" + portsInfix + n.Ports + "-" + n.ID
	case KindPolicy:
		return prefix + PolicyChain(n.Direction, n.ID)
	case KindCommon:
		return prefix + CommonChain(n.Direction)
	case KindSelf:
		return prefix + SelfChain(n.Direction)
	case KindCustom:
		return prefix + CustomChain(n.Direction, n.Family)
	}
	return n.ID
}

// ParseChain parses the name of a chain of the agent's table. It returns false for a name that has none of the forms
// above.
func ParseChain(name string) (ChainName, bool) {
	rest, replies := strings.CutPrefix(name, RepliesPrefix)
	for _, d := range Directions {
		n := ChainName{Direction: d, Replies: replies}
		switch rest {
		case CommonChain(d):
			n.Kind = KindCommon
			return n, true
		case SelfChain(d):
			n.Kind = KindSelf
			return n, true
		}
		// A hook is the whole name, without a prefix.
		if slices.Contains(d.Hooks(), Hook(name)) {
			n.ID = name
			return n, true
		}
		for _, f := range sets.Families {
			if rest == CustomChain(d, f) {
				n.Kind, n.Family = KindCustom, f
				return n, true
			}
		}
		// What is left after all other forms is the chain of an interface or a policy.
		if id, ok := strings.CutPrefix(rest, d.String()+"-"); ok && id != "" {
			n.Kind, n.ID = KindInterface, id
			if policy, ok := strings.CutPrefix(id, policyInfix); ok && isDigest(policy) {
				n.Kind, n.ID = KindPolicy, policy
			}
			if ports, ok := strings.CutPrefix(id, portsInfix); ok && len(ports) > digestLength+1 &&
				isDigest(ports[:digestLength]) && ports[digestLength] == '-' {
				n.Kind, n.Ports, n.ID = KindPorts, ports[:digestLength], ports[digestLength+1:]
			}
			return n, true
		}
	}
	return ChainName{}, false
}

const digestLength = 16

// isDigest reports whether s is 16 lower-case hex digits. With "policy-" or "ports-" before them, they are longer than the name
// of any interface (15 bytes). InterfaceChain lengthens only names with an underscore, and puts the digits at the end.
func isDigest(s string) bool {
	return len(s) == digestLength && strings.Trim(s, "0123456789abcdef") == ""
}
