package trace

import (
	"net/netip"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Filter says which packets are traced. What is zero is no condition, but for Rate.
type Filter struct {
	Interface string
	From, To  netip.Prefix
	Protocol  uint8
	Port      uint16 // that TCP, UDP or SCTP goes to
	Rate      uint32 // packets a second, at most
}

// transports have ports.
var transports = []expr.Transport{expr.TCP, expr.UDP, expr.SCTP}

// rules are the matches of the rules that lead to the mark. A port without a protocol takes one for each that has ports.
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
			list = append(list, append(base[:len(base):len(base)], port))
		}
	}
	return list
}

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
