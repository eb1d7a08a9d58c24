package expr

import (
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// OwnCopy is `meta pkttype != host rt ip nexthop != 0.0.0.0`, or the same with ip6: the packet is the copy of a multicast
// or broadcast message that the host itself sent. The kernel makes that copy behind the output hook
// (dev_loopback_xmit in net/core/dev.c), so at the prerouting hook it already has a route. A packet from outside has none
// there, and what it claims as its source does not matter.
func OwnCopy(f sets.Family) []Statement {
	key := expr.RtNexthop4
	text, none := "rt ip nexthop != 0.0.0.0", make([]byte, familyOf(f).addrLen)
	if f == sets.V6 {
		key, text = expr.RtNexthop6, "rt ip6 nexthop != ::"
	}
	return []Statement{
		{Text: "meta pkttype != host", Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyPKTTYPE, Register: reg},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: []byte{unix.PACKET_HOST}},
		}},
		{Text: text, Exprs: []expr.Any{
			&expr.Rt{Key: key, Register: reg},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: none},
		}},
	}
}
