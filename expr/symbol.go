package expr

// symbols holds nft's names for the numbers of a type, for reading and printing.
type symbols struct {
	byName   map[string]uint32
	byNumber map[uint32]string
}

// symbol is a name for a number. If a number has several names, nft prints the first.
type symbol struct {
	name   string
	number uint32
}

// newSymbols indexes the list both ways. All names of a number can be read; the first is printed.
func newSymbols(list ...symbol) symbols {
	s := symbols{byName: map[string]uint32{}, byNumber: map[uint32]string{}}
	for _, e := range list {
		s.byName[e.name] = e.number
		if _, ok := s.byNumber[e.number]; !ok {
			s.byNumber[e.number] = e.name
		}
	}
	return s
}

// symbolsOf returns the names of a type. It returns no names for ports and marks.
func symbolsOf(d Datatype) symbols {
	switch d {
	case TypeInetProto:
		return protocolNames
	case TypeICMP:
		return icmpTypes
	case TypeICMPv6:
		return icmpv6Types
	}
	return symbols{}
}

// protocolNames are the names of IP protocols that nft reads from /etc/protocols, as Debian has that file.
var protocolNames = newSymbols(
	symbol{"ip", 0}, symbol{"icmp", 1}, symbol{"igmp", 2}, symbol{"ggp", 3}, symbol{"ipencap", 4}, symbol{"st", 5},
	symbol{"tcp", 6}, symbol{"egp", 8}, symbol{"igp", 9}, symbol{"pup", 12}, symbol{"udp", 17}, symbol{"hmp", 20},
	symbol{"xns-idp", 22}, symbol{"rdp", 27}, symbol{"iso-tp4", 29}, symbol{"dccp", 33}, symbol{"xtp", 36},
	symbol{"ddp", 37}, symbol{"idpr-cmtp", 38}, symbol{"ipv6", 41}, symbol{"ipv6-route", 43}, symbol{"ipv6-frag", 44},
	symbol{"idrp", 45}, symbol{"rsvp", 46}, symbol{"gre", 47}, symbol{"esp", 50}, symbol{"ah", 51}, symbol{"skip", 57},
	symbol{"ipv6-icmp", 58}, symbol{"icmpv6", 58}, symbol{"ipv6-nonxt", 59}, symbol{"ipv6-opts", 60}, symbol{"rspf", 73},
	symbol{"vmtp", 81}, symbol{"eigrp", 88}, symbol{"ospf", 89}, symbol{"ax.25", 93}, symbol{"ipip", 94},
	symbol{"etherip", 97}, symbol{"encap", 98}, symbol{"pim", 103}, symbol{"ipcomp", 108}, symbol{"vrrp", 112},
	symbol{"l2tp", 115}, symbol{"isis", 124}, symbol{"sctp", 132}, symbol{"fc", 133}, symbol{"mobility-header", 135},
	symbol{"udplite", 136}, symbol{"mpls-in-ip", 137}, symbol{"manet", 138}, symbol{"hip", 139}, symbol{"shim6", 140},
	symbol{"wesp", 141}, symbol{"rohc", 142}, symbol{"ethernet", 143},
)

// icmpTypes are ICMP's message types (IANA registry "ICMP Parameters").
var icmpTypes = newSymbols(
	symbol{"echo-reply", 0}, symbol{"destination-unreachable", 3}, symbol{"source-quench", 4}, symbol{"redirect", 5},
	symbol{"echo-request", 8}, symbol{"router-advertisement", 9}, symbol{"router-solicitation", 10},
	symbol{"time-exceeded", 11}, symbol{"parameter-problem", 12}, symbol{"timestamp-request", 13},
	symbol{"timestamp-reply", 14}, symbol{"info-request", 15}, symbol{"info-reply", 16},
	symbol{"address-mask-request", 17}, symbol{"address-mask-reply", 18},
)

// icmpv6Types are ICMPv6's message types (IANA registry "ICMPv6 Parameters").
var icmpv6Types = newSymbols(
	symbol{"destination-unreachable", 1}, symbol{"packet-too-big", 2}, symbol{"time-exceeded", 3},
	symbol{"parameter-problem", 4}, symbol{"echo-request", 128}, symbol{"echo-reply", 129},
	symbol{"mld-listener-query", 130}, symbol{"mld-listener-report", 131}, symbol{"mld-listener-done", 132},
	symbol{"mld-listener-reduction", 132}, symbol{"nd-router-solicit", 133}, symbol{"nd-router-advert", 134},
	symbol{"nd-neighbor-solicit", 135}, symbol{"nd-neighbor-advert", 136}, symbol{"nd-redirect", 137},
	symbol{"router-renumbering", 138}, symbol{"ind-neighbor-solicit", 141}, symbol{"ind-neighbor-advert", 142},
	symbol{"mld2-listener-report", mldv2Report},
)

// icmpCodes are the codes of ICMP's destination unreachable (RFC 792, RFC 1122 section 3.2.2.1, RFC 1812).
var icmpCodes = newSymbols(
	symbol{"net-unreachable", 0}, symbol{"host-unreachable", 1}, symbol{"prot-unreachable", 2},
	symbol{"port-unreachable", 3}, symbol{"frag-needed", 4}, symbol{"net-prohibited", 9},
	symbol{"host-prohibited", 10}, symbol{"admin-prohibited", 13},
)

// icmpv6Codes are the codes of ICMPv6's destination unreachable (RFC 4443 section 3.1).
var icmpv6Codes = newSymbols(
	symbol{"no-route", 0}, symbol{"admin-prohibited", 1}, symbol{"addr-unreachable", 3}, symbol{"port-unreachable", 4},
	symbol{"policy-fail", 5}, symbol{"reject-route", 6},
)

// icmpxCodes are codes for either family. The kernel translates them for the packet's family (enum nft_reject_inet_code).
var icmpxCodes = newSymbols(
	symbol{"no-route", 0}, symbol{"port-unreachable", icmpxPortUnreachable}, symbol{"host-unreachable", 2},
	symbol{"admin-prohibited", 3},
)
