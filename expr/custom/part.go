package custom

import (
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// part is a statement of a rule as it was read. What becomes of it can depend on what comes later in the rule.
type part struct {
	token     token
	statement expr.Statement
	family    sets.Family // of the packets that pass it; 0: any

	protocol    uint32 // of the packets that pass it, if hasProtocol
	hasProtocol bool
	inHeader    bool // it looks into the header of that protocol
	isOpen      bool // it is about the protocol, and packets of several pass it

	port   func(expr.Transport) expr.Statement // of th
	reject *rejection
}

func (p *parser) add(s expr.Statement) { p.parts = append(p.parts, part{statement: s}) }

// known is what all parts of a rule together say of the packets.
type known struct {
	protocol    uint32
	hasProtocol bool
	inHeader    bool        // some part looks into the header of the protocol
	open        *part       // the last part that lets several protocols pass
	family      sets.Family // 0: any
}

// known also refuses what no packet can be.
func (p *parser) known() (known, *SyntaxError) {
	var k known
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
		k.inHeader = k.inHeader || part.inHeader || part.port != nil && k.hasProtocol
	}
	if k.open != nil && k.inHeader {
		return k, p.wrong(k.open.token, "no other protocols in a rule about "+k.name()+" (th has the ports of any)")
	}
	return k, nil
}

func (k known) name() string { return expr.TypeInetProto.Text(k.protocol) }

// finish makes the statements. As nft does, it leaves out a check of the protocol that a look into its header implies,
// and calls the ports of a known protocol by its name.
func (p *parser) finish() ([]expr.Statement, *SyntaxError) {
	k, err := p.known()
	if err != nil {
		return nil, err
	}
	var list []expr.Statement
	isChecked := k.inHeader
	for _, part := range p.parts {
		switch {
		case part.reject != nil:
			return p.finishReject(list, part, k)
		case part.port != nil:
			list = append(list, part.port(expr.Transport(k.protocol)))
		case part.hasProtocol && !part.inHeader && isChecked:
		default:
			list = append(list, part.statement)
			isChecked = isChecked || part.hasProtocol
		}
	}
	return list, nil
}

// rejection is the answer that a rule gives. Without a kind, it is the one that suits the rule.
type rejection struct {
	isReset bool
	hasKind bool
	kind    expr.Rejection
	code    byte
}

// finishReject ends the rule with its answer.
func (p *parser) finishReject(list []expr.Statement, reject part, k known) ([]expr.Statement, *SyntaxError) {
	r := *reject.reject
	if r.isReset {
		switch {
		case k.open != nil, k.hasProtocol && k.protocol != unix.IPPROTO_TCP:
			return nil, p.wrong(reject.token, "no tcp reset in a rule that is not about TCP alone")
		case !k.hasProtocol: // first, where nft puts it
			tcp := sets.NumberRange{From: unix.IPPROTO_TCP, To: unix.IPPROTO_TCP}
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
