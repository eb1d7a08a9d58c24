package expr

import (
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/bytecode"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/uapi"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// icmpxPortUnreachable is NFT_REJECT_ICMPX_PORT_UNREACH.
const icmpxPortUnreachable = 1

// Rejection is the kind of the ICMP error that a reject statement sends. The zero value is RejectICMPX.
type Rejection uint8

// The kinds. With RejectICMPX, the kernel chooses ICMP or ICMPv6 by the packet's family.
const (
	RejectICMPX Rejection = iota
	RejectICMP
	RejectICMPv6
)

// RejectFamily returns the kind for packets of a family.
func RejectFamily(f sets.Family) Rejection {
	if f == sets.V4 {
		return RejectICMP
	}
	return RejectICMPv6
}

// codes returns the word of the kind in nft and the names of its codes.
func (r Rejection) codes() (word string, codes symbols) {
	switch r {
	case RejectICMP:
		return "icmp", icmpCodes
	case RejectICMPv6:
		return "icmpv6", icmpv6Codes
	}
	return "icmpx", icmpxCodes
}

// Code returns the number of a code by its name, such as port-unreachable. The same name has different numbers in the
// kinds.
func (r Rejection) Code(name string) (byte, bool) {
	_, codes := r.codes()
	n, ok := codes.byName[name]
	return byte(n), ok
}

// HasCode reports whether the number is a code of this kind for an unreachable destination.
func (r Rejection) HasCode(n uint32) bool {
	_, codes := r.codes()
	_, ok := codes.byNumber[n]
	return ok
}

// Unreachable returns the code of a plain `reject`: port unreachable.
func (r Rejection) Unreachable() byte {
	code, _ := r.Code("port-unreachable")
	return code
}

// Reject is `reject with icmp CODE`, `reject with icmpv6 CODE` or `reject with icmpx CODE`: it drops the packet and sends the
// ICMP error to its sender. With icmp and icmpv6, packets of the other family do not match.
func Reject(r Rejection, code byte) Statement {
	word, codes := r.codes()
	s := Statement{Text: "reject with " + word + " " + codes.byNumber[uint32(code)]}
	switch r {
	case RejectICMPX:
		if code == icmpxPortUnreachable {
			s.Text = "reject"
		}
		s.Exprs = []bytecode.Any{&bytecode.Reject{Type: uapi.NFT_REJECT_ICMPX_UNREACH, Code: code}}
		return s
	// nft adds a check of the family too, since a table of family inet has packets of both.
	case RejectICMP:
		s.Exprs = familyOf(sets.V4).isFamily()
	case RejectICMPv6:
		s.Exprs = familyOf(sets.V6).isFamily()
	}
	s.Exprs = append(s.Exprs, &bytecode.Reject{Type: uapi.NFT_REJECT_ICMP_UNREACH, Code: code})
	return s
}

// RejectReset is `reject with tcp reset`. The rule must match TCP before it.
func RejectReset() Statement {
	return Statement{
		Text:  "reject with tcp reset",
		Exprs: []bytecode.Any{&bytecode.Reject{Type: uapi.NFT_REJECT_TCP_RST}},
	}
}
