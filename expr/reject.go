package expr

import (
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// icmpxPortUnreachable is NFT_REJECT_ICMPX_PORT_UNREACH.
const icmpxPortUnreachable = 1

// Rejection is the kind of ICMP message that tells the sender.
type Rejection uint8

// The kinds. RejectICMPX is that of the packet's family.
const (
	RejectICMPX Rejection = iota
	RejectICMP
	RejectICMPv6
)

// RejectFamily is the kind of one family.
func RejectFamily(f sets.Family) Rejection {
	if f == sets.V4 {
		return RejectICMP
	}
	return RejectICMPv6
}

func (r Rejection) codes() (word string, codes symbols) {
	switch r {
	case RejectICMP:
		return "icmp", icmpCodes
	case RejectICMPv6:
		return "icmpv6", icmpv6Codes
	}
	return "icmpx", icmpxCodes
}

// Code is the number of a code that has the name.
func (r Rejection) Code(name string) (byte, bool) {
	_, codes := r.codes()
	n, ok := codes.byName[name]
	return byte(n), ok
}

// HasCode says whether the number is that of a code with a name.
func (r Rejection) HasCode(n uint32) bool {
	_, codes := r.codes()
	_, ok := codes.byNumber[n]
	return ok
}

// Unreachable is the code that `reject` without any more words has.
func (r Rejection) Unreachable() byte {
	code, _ := r.Code("port-unreachable")
	return code
}

// Reject is `reject with icmp CODE` or the like: the packet is gone, and the sender is told why. Packets of another
// family than the message's do not match.
func Reject(r Rejection, code byte) Statement {
	word, codes := r.codes()
	s := Statement{Text: "reject with " + word + " " + codes.byNumber[uint32(code)]}
	switch r {
	case RejectICMPX:
		if code == icmpxPortUnreachable {
			s.Text = "reject"
		}
		s.Exprs = []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: code}}
		return s
	case RejectICMP:
		s.Exprs = familyOf(sets.V4).isFamily()
	case RejectICMPv6:
		s.Exprs = familyOf(sets.V6).isFamily()
	}
	s.Exprs = append(s.Exprs, &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code})
	return s
}

// RejectReset is `reject with tcp reset`. The rule must have a match before it that only TCP passes.
func RejectReset() Statement {
	return Statement{
		Text:  "reject with tcp reset",
		Exprs: []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}},
	}
}
