package expr

import (
	"strconv"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// ICMP is `meta l4proto icmp` or `meta l4proto ipv6-icmp`: all messages of the protocol.
func ICMP(f sets.Family) Statement {
	if f == sets.V4 {
		return Statement{Text: "meta l4proto icmp", Exprs: l4proto(unix.IPPROTO_ICMP)}
	}
	return Statement{Text: "meta l4proto ipv6-icmp", Exprs: l4proto(unix.IPPROTO_ICMPV6)}
}

func l4proto(number byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{number}},
	}
}

// ICMPv6 message types (IANA registry "ICMPv6 Parameters").
const (
	mldQuery              = 130 // RFC 2710; 131 and 132 are report and done
	neighborAdvertisement = 136 // RFC 4861; 133 to 135 are router solicitation, its answer, neighbor solicitation
	mldv2Report           = 143 // RFC 9777
)

// NeighborDiscovery returns the matches of what IPv6 cannot do without on a link: MLD, router and neighbor discovery,
// as one range of types, and MLDv2's report. Redirects (137) are not among them: a network works without.
func NeighborDiscovery() []Statement {
	return []Statement{icmpv6Types(mldQuery, neighborAdvertisement), icmpv6Types(mldv2Report, mldv2Report)}
}

func icmpv6Types(from, to byte) Statement {
	fam := familyOf(sets.V6)
	s := Statement{Exprs: append(fam.isFamily(), l4proto(unix.IPPROTO_ICMPV6)...)}
	s.Exprs = append(s.Exprs, &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1})
	if from == to {
		s.Text = "icmpv6 type mld2-listener-report"
		s.Exprs = append(s.Exprs, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{from}})
		return s
	}
	s.Text = "icmpv6 type " + strconv.Itoa(int(from)) + "-" + strconv.Itoa(int(to))
	s.Exprs = append(s.Exprs,
		&expr.Cmp{Op: expr.CmpOpGte, Register: reg, Data: []byte{from}},
		&expr.Cmp{Op: expr.CmpOpLte, Register: reg, Data: []byte{to}})
	return s
}
