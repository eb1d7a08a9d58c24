package trace

import (
	"net/netip"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Filter selects the packets to trace. A packet must meet all conditions. A field with its zero value is no condition;
// only Rate must be set.
type Filter struct {
	// Interface is the name that the pod knows, such as net1. In a bridge it also selects frames of the port that
	// carries the interface, see markTable.filters.
	Interface string
	From, To  netip.Prefix // source and destination; must be of the same family if both are set
	Protocol  uint8        // IP protocol number
	Port      uint16       // destination port of TCP, UDP or SCTP
	// Rate bounds the cost of a trace for the node and its reader. The limit holds for all rules of a table together.
	Rate uint32 // maximum of traced packets per second, at least 1
}

// transports are the protocols with ports.
var transports = []expr.Transport{expr.TCP, expr.UDP, expr.SCTP}

// rules returns the matches of each rule that leads to the mark. A port without a protocol needs a rule for each transport.
// onLink matches the interface of the hook: incoming or outgoing.
func (f Filter) rules(onLink func(string) expr.Statement) [][]expr.Statement {
	base := f.matches(onLink)
	if f.Port == 0 {
		if f.Protocol != 0 {
			base = append(base, expr.L4Protocol().Range(expr.Is, single(uint32(f.Protocol))))
		}
		return [][]expr.Statement{base}
	}
	var list [][]expr.Statement
	for _, t := range transports {
		if f.Protocol == 0 || f.Protocol == uint8(t) {
			port := expr.DestinationPort(t).Range(expr.Is, single(uint32(f.Port)))
			// The full slice expression makes append copy: the rules must not share the memory behind base.
			list = append(list, append(base[:len(base):len(base)], port))
		}
	}
	return list
}

// matches returns the conditions on interface and addresses.
func (f Filter) matches(onLink func(string) expr.Statement) []expr.Statement {
	var list []expr.Statement
	if f.Interface != "" {
		list = append(list, onLink(f.Interface))
	}
	for _, side := range []struct {
		prefix netip.Prefix
		field  func(sets.Family) expr.AddressField
	}{{f.From, expr.Source}, {f.To, expr.Destination}} {
		if side.prefix.IsValid() {
			list = append(list, side.field(sets.FamilyOf(side.prefix.Addr())).Prefix(expr.Is, side.prefix))
		}
	}
	return list
}

func single(n uint32) sets.NumberRange { return sets.NumberRange{From: n, To: n} }
