package cache

import (
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// direction is the way that packets go, seen from the pod. All that differs between the two is here.
type direction uint8

const (
	ingress direction = iota
	egress
)

var directions = [...]direction{ingress, egress}

// String is the direction's name in fields, comments and chains.
func (d direction) String() string {
	if d == ingress {
		return "ingress"
	}
	return "egress"
}

// peerField is the name of the list of peers in a rule.
func (d direction) peerField() string {
	if d == ingress {
		return "from"
	}
	return "to"
}

// hook is where the base chain hangs, and its name.
func (d direction) hook() engine.Hook {
	if d == ingress {
		return engine.HookInput
	}
	return engine.HookOutput
}

func (d direction) onInterface(name string) expr.Statement {
	if d == ingress {
		return expr.IIFName(name)
	}
	return expr.OIFName(name)
}

// opposite is the way that replies go.
func (d direction) opposite() direction { return 1 - d }

func (d direction) peerIn(f sets.Family, set string) expr.Statement {
	if d == ingress {
		return expr.SourceIn(f, set)
	}
	return expr.DestinationIn(f, set)
}
