package custom

import (
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/uapi"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// part is a statement of a rule as it was read. Later statements of the rule can still change it: finish makes the final
// statements.
type part struct {
	token     token // for errors
	statement expr.Statement
	// family is 0 for any family. In a file for IPv4, the only other value is sets.V4.
	family sets.Family // only packets of this family match; 0: any

	protocol    uint32 // only packets of this IP protocol match, if hasProtocol
	hasProtocol bool
	inHeader    bool // the match reads the header of the protocol
	isOpen      bool // a match by protocol that packets of several protocols can match

	port   func(expr.Transport) expr.Statement // makes the match of a `th` part for a protocol; nil for other parts
	reject *rejection                          // nil for other parts
}

// add adds a statement that does not depend on other statements of the rule, such as a counter or a match by mark.
func (p *parser) add(s expr.Statement) { p.parts = append(p.parts, part{statement: s}) }

// constraints are the properties that all parts of a rule together require of a packet.
type constraints struct {
	protocol    uint32
	hasProtocol bool
	inHeader    bool        // a part reads the header of the protocol
	open        *part       // the last part with isOpen; nil: none
	family      sets.Family // 0: any
}

// constraints returns the constraints of the rule. It is an error if they contradict each other, since such a rule
// would never match: `tcp dport 80 meta l4proto udp`.
func (p *parser) constraints() (constraints, *SyntaxError) {
	// The protocol comes first: a `th` match depends on a protocol that a later part may name.
	var k constraints
	for _, part := range p.parts {
		if !part.hasProtocol {
			continue
		}
		if k.hasProtocol && k.protocol != part.protocol {
			return k, p.wrong(part.token, "no second protocol: the rule is about "+k.name()+" already")
		}
		k.protocol, k.hasProtocol = part.protocol, true
	}
	for i, part := range p.parts {
		if part.family != 0 {
			k.family = part.family
		}
		if part.port != nil && k.hasProtocol && !expr.HasPorts(uint8(k.protocol)) {
			return k, p.wrong(part.token, "no ports in a rule about "+k.name())
		}
		if part.isOpen {
			k.open = &p.parts[i]
		}
		// With a known protocol, `th` becomes a match that reads the header of this protocol.
		k.inHeader = k.inHeader || part.inHeader || part.port != nil && k.hasProtocol
	}
	if k.open != nil && k.inHeader {
		return k, p.wrong(k.open.token, "no other protocols in a rule about "+k.name()+" (th has the ports of any)")
	}
	return k, nil
}

// name returns the name of the protocol, for errors.
func (k constraints) name() string { return expr.TypeInetProto.Text(k.protocol) }

// finish makes the statements of the rule. As nft does, it leaves out a check of the protocol if another match reads
// the protocol's header (`tcp dport` implies TCP), and replaces `th` by the name of the protocol if the rule names a
// protocol:
//
//	meta l4proto tcp th dport 80 accept   becomes   tcp dport 80 accept
func (p *parser) finish() ([]expr.Statement, *SyntaxError) {
	k, err := p.constraints()
	if err != nil {
		return nil, err
	}
	var list []expr.Statement
	isChecked := k.inHeader // the rule checks the protocol already
	for _, part := range p.parts {
		switch {
		// A reject is a verdict, so it is the last part.
		case part.reject != nil:
			return p.finishReject(list, part, k)
		case part.port != nil:
			list = append(list, part.port(expr.Transport(k.protocol)))
		// The match of another part makes this check.
		case part.hasProtocol && !part.inHeader && isChecked:
		default:
			list = append(list, part.statement)
			isChecked = isChecked || part.hasProtocol
		}
	}
	return list, nil
}

// rejection is a reject statement as it was read.
type rejection struct {
	isReset bool // with tcp reset
	hasKind bool // false: plain `reject`, with the kind of the rule's family
	kind    expr.Rejection
	code    byte
}

// finishReject appends the reject statement of the rule. A plain `reject` has the code port-unreachable of the rule's
// family. Without a family, the kernel chooses between ICMP and ICMPv6 for each packet (icmpx).
func (p *parser) finishReject(list []expr.Statement, reject part, k constraints) ([]expr.Statement, *SyntaxError) {
	r := *reject.reject
	// nft accepts a reset in rules about TCP only, since the kernel can answer no other packet with a reset.
	if r.isReset {
		switch {
		case k.open != nil, k.hasProtocol && k.protocol != uapi.IPPROTO_TCP:
			return nil, p.wrong(reject.token, "no tcp reset in a rule that is not about TCP alone")
		case !k.hasProtocol: // the check comes first in the rule, as in nft
			tcp := sets.NumberRange{From: uapi.IPPROTO_TCP, To: uapi.IPPROTO_TCP}
			list = append([]expr.Statement{expr.L4Protocol().Range(expr.Is, tcp)}, list...)
		}
		return append(list, expr.RejectReset()), nil
	}
	if !r.hasKind {
		r.kind = expr.RejectICMPX
		if k.family != 0 {
			r.kind = expr.RejectFamily(k.family)
		}
		r.code = r.kind.Unreachable()
	}
	return append(list, expr.Reject(r.kind, r.code)), nil
}
