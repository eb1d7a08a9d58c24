package expr

import (
	"net/netip"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/bytecode"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/uapi"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// ICMP is `meta l4proto icmp` or `meta l4proto ipv6-icmp`: it matches all messages of the protocol.
func ICMP(f sets.Family) Statement {
	number := uint32(uapi.IPPROTO_ICMP)
	if f == sets.V6 {
		number = uapi.IPPROTO_ICMPV6
	}
	return L4Protocol().Range(Is, sets.NumberRange{From: number, To: number})
}

// l4proto checks the transport protocol (IP protocol number) of the packet. Unlike `ip protocol`, it looks behind the
// extension headers of IPv6.
func l4proto(number byte) []bytecode.Any {
	return []bytecode.Any{
		&bytecode.Meta{Key: bytecode.MetaKeyL4PROTO, Register: reg},
		&bytecode.Cmp{Op: bytecode.CmpOpEq, Register: reg, Data: []byte{number}},
	}
}

// ICMPv6 message types (IANA registry "ICMPv6 Parameters").
const (
	mldQuery              = 130 // RFC 2710; 131 and 132 are report and done
	neighborAdvertisement = 136 // RFC 4861; 133 to 135 are router solicitation, its answer, neighbor solicitation
	mldv2Report           = 143 // RFC 9777
)

// LinkControl returns the matches of the messages that a link needs to work, a list for each rule: first MLD, router
// discovery and neighbor discovery of IPv6 as a range of types, then the report of MLDv2, then IGMP. Redirects (137) do
// not match: a link works without them. Each list lacks a verdict, which the caller adds.
func LinkControl() [][]Statement {
	types := ICMPType(sets.V6)
	return [][]Statement{
		{types.Range(Is, sets.NumberRange{From: mldQuery, To: neighborAdvertisement})},
		{types.Range(Is, sets.NumberRange{From: mldv2Report, To: mldv2Report})},
		{
			Destination(sets.V4).Prefix(Is, netip.MustParsePrefix("224.0.0.0/4")), // all messages of RFC 9776 go to a group
			L4Protocol().Range(Is, sets.NumberRange{From: uapi.IPPROTO_IGMP, To: uapi.IPPROTO_IGMP}),
		},
	}
}
