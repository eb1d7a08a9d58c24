package engine

import (
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Direction is the direction of traffic, seen from the pod: Ingress traffic enters the pod, Egress traffic leaves it.
type Direction uint8

// The two directions. The zero value is Ingress.
const (
	Ingress Direction = iota
	Egress
)

// Directions lists both directions, in the order in which a table is built.
var Directions = [...]Direction{Ingress, Egress}

// String returns "ingress" or "egress", as chain names, comments and the fields of a policy spell it.
func (d Direction) String() string {
	if d == Ingress {
		return "ingress"
	}
	return "egress"
}

// Opposite returns the other direction, in which the replies to traffic of this direction go.
func (d Direction) Opposite() Direction { return 1 - d }

// Hooks returns the hooks that see traffic of this direction. Egress has two hooks: the pod may forward traffic for
// others, as for a virtual machine behind address translation.
func (d Direction) Hooks() []Hook {
	if d == Ingress {
		return []Hook{HookPrerouting}
	}
	return []Hook{HookForward, HookOutput}
}

// OnInterface matches packets of this direction on the pod's interface with the given name.
func (d Direction) OnInterface(name string) expr.Statement {
	if d == Ingress {
		return expr.IIFName(name)
	}
	return expr.OIFName(name)
}

// OnInterfaces matches packets of this direction on the pod's interfaces with a pattern of names, "net1.*".
func (d Direction) OnInterfaces(pattern string) expr.Statement {
	if d == Ingress {
		return expr.InputInterface(expr.Is, pattern)
	}
	return expr.OutputInterface(expr.Is, pattern)
}

// PeerIn matches packets of this direction whose peer is in the set. The peer is the source of ingress traffic and the
// destination of egress traffic.
func (d Direction) PeerIn(f sets.Family, set string) expr.Statement {
	if d == Ingress {
		return expr.SourceIn(f, set)
	}
	return expr.DestinationIn(f, set)
}
