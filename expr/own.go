package expr

import (
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/bytecode"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/uapi"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// OwnCopy is `meta pkttype != host rt ip nexthop != 0.0.0.0`, or the same with ip6. It matches the looped-back copy of a
// multicast or broadcast packet that the host itself sent. The kernel makes the copy after the output hook
// (dev_loopback_xmit in net/core/dev.c), so the copy already has a route at the prerouting hook. A packet from outside has no
// route at this hook, so it does not match, even with a forged source address.
func OwnCopy(f sets.Family) []Statement {
	key := bytecode.RtNexthop4
	text, none := "rt ip nexthop != 0.0.0.0", make([]byte, familyOf(f).addrLen)
	if f == sets.V6 {
		key, text = bytecode.RtNexthop6, "rt ip6 nexthop != ::"
	}
	return []Statement{
		{Text: "meta pkttype != host", Exprs: []bytecode.Any{
			&bytecode.Meta{Key: bytecode.MetaKeyPKTTYPE, Register: reg},
			&bytecode.Cmp{Op: bytecode.CmpOpNeq, Register: reg, Data: []byte{uapi.PACKET_HOST}},
		}},
		// Without a route, the load itself ends the rule (NFT_BREAK in nft_rt_get_eval). With a route, the next hop is
		// a gateway or the destination and never zero, so the comparison is true; nft has no `rt` match without a
		// comparison.
		{Text: text, Exprs: []bytecode.Any{
			&bytecode.Rt{Key: key, Register: reg},
			&bytecode.Cmp{Op: bytecode.CmpOpNeq, Register: reg, Data: none},
		}},
	}
}
