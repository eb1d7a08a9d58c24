package custom

import (
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/uapi"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// ofFamily refuses a word of a family other than the file's, since such a rule would never match.
func (p *parser) ofFamily(t token, f sets.Family) *SyntaxError {
	if f != p.family {
		return p.wrong(t, "nothing of IP"+f.String()+": these are rules for IP"+p.family.String())
	}
	return nil
}

// address reads the match after `ip` or `ip6`: `saddr 10.0.0.0/8`, `daddr != { 10.0.0.1, 10.0.0.5-10.0.0.9 }`. Replies
// have source and destination exchanged.
func (p *parser) address(t token, f sets.Family) *SyntaxError {
	if err := p.ofFamily(t, f); err != nil {
		return err
	}
	side := p.next()
	if !side.is("saddr") && !side.is("daddr") {
		return p.wrong(side, "saddr or daddr (the protocol is meta l4proto)")
	}
	// For replies, saddr of the file is the destination.
	field := expr.Source(f)
	if side.is("daddr") != p.replies {
		field = expr.Destination(f)
	}
	op := p.op()
	s, err := p.addresses(field, op)
	if err == nil {
		p.parts = append(p.parts, part{token: t, statement: s, family: f})
	}
	return err
}

// op reads `!=`, `==` or nothing.
func (p *parser) op() expr.Op {
	if p.take("!=") {
		return expr.IsNot
	}
	p.take("==")
	return expr.Is
}

// port reads the match after `tcp`, `udp`, `sctp` or `th`: `dport 80`, `sport != 1024-65535`. For `th`, finish makes
// the statement when the protocol of the rule is known. For replies, the ports are exchanged like the addresses.
func (p *parser) port(t token, transport expr.Transport) *SyntaxError {
	side := p.next()
	if !side.is("sport") && !side.is("dport") {
		return p.wrong(side, "sport or dport")
	}
	field := expr.SourcePort
	if side.is("dport") != p.replies {
		field = expr.DestinationPort
	}
	op := p.op()
	values, err := p.numbers(expr.TypeInetService)
	if err != nil {
		return err
	}
	// values.match is kept for finish, because `th` becomes `tcp` if a later statement of the rule says so.
	match := func(t expr.Transport) expr.Statement { return values.match(field(t), op) }
	if transport == expr.AnyTransport {
		p.parts = append(p.parts, part{token: t, port: match})
	} else {
		p.parts = append(p.parts, part{
			token: t, statement: match(transport), protocol: uint32(transport), hasProtocol: true, inHeader: true,
		})
	}
	return nil
}

// icmpType reads the match after `icmp` or `icmpv6`: `type echo-request`.
func (p *parser) icmpType(t token, f sets.Family) *SyntaxError {
	if err := p.ofFamily(t, f); err != nil {
		return err
	}
	if err := p.expect("type"); err != nil {
		return err
	}
	field, op := expr.ICMPType(f), p.op()
	values, err := p.numbers(field.Type)
	if err != nil {
		return err
	}
	m := part{token: t, statement: values.match(field, op), family: f, protocol: icmpOf(f), hasProtocol: true, inHeader: true}
	if p.replies { // a reply has a different type, such as echo-reply, so the rule for replies matches all types
		m.statement, m.inHeader, p.inexact = expr.ICMP(f), false, true
	}
	p.parts = append(p.parts, m)
	return nil
}

// icmpOf returns the number of the ICMP protocol of a family.
func icmpOf(f sets.Family) uint32 {
	if f == sets.V4 {
		return uapi.IPPROTO_ICMP
	}
	return uapi.IPPROTO_ICMPV6
}

// metaKeys are the keys that can follow `meta`. In nft, all of them but l4proto may stand without the word meta.
var metaKeys = map[string]bool{"l4proto": true, "iifname": true, "oifname": true, "mark": true}

// meta reads the match after `meta`, or a match by interface or mark without the word meta. Replies have input and output
// exchanged.
func (p *parser) meta(t token) *SyntaxError {
	switch t.text {
	case "l4proto":
		return p.l4proto(t)
	case "mark":
		return p.mark()
	}
	if (t.text == "iifname") != p.replies {
		return p.iface(expr.InputInterface)
	}
	return p.iface(expr.OutputInterface)
}

// l4proto reads a match by protocol: `tcp`, `!= udp`, `{ tcp, udp }`. It notes the protocol, so that finish can check
// the rule for contradictions.
func (p *parser) l4proto(t token) *SyntaxError {
	op, value := p.op(), p.peek()
	values, err := p.numbers(expr.TypeInetProto)
	if err != nil {
		return err
	}
	number, isOne := values.single()
	// The ICMP of the other family never occurs in packets of this file.
	for _, f := range sets.Families {
		if isOne && f != p.family && number == icmpOf(f) {
			return p.ofFamily(value, f)
		}
	}
	m := part{token: t, statement: values.match(expr.L4Protocol(), op), protocol: number}
	m.hasProtocol = isOne && op == expr.Is
	m.isOpen = !m.hasProtocol
	p.parts = append(p.parts, m)
	return nil
}

// maxInterface is the maximum length of an interface's name: IFNAMSIZ without the NUL.
const maxInterface = uapi.IFNAMSIZ - 1

// iface reads the name of an interface after its key, with or without quotes and a star at the end. It refuses
// characters that no interface can have in its name (dev_valid_name in the kernel), and a backslash, with which nft
// escapes a star.
func (p *parser) iface(match func(expr.Op, string) expr.Statement) *SyntaxError {
	op, t := p.op(), p.next()
	name := strings.TrimSuffix(t.text, "*")
	if t.kind != word && t.kind != quoted || name == "" || len(t.text) > maxInterface || strings.ContainsAny(name, " :/*\\") {
		return p.wrong(t, "the name of an interface, or the start of one and a star")
	}
	p.add(match(op, t.text))
	return nil
}

// mark reads a match by mark:
//
//	mark 0x10        mark { 0x10, 0x20-0x2f }     values
//	mark 0x10/28                                  a prefix: the first 28 bits
//	mark & 0xff == 0x10                           a mask and a value
func (p *parser) mark() *SyntaxError {
	if !p.take("&") && !p.take("and") {
		op := p.op()
		if value, mask, ok := parseMarkPrefix(p.peek()); ok {
			p.next()
			p.addMark(expr.MarkMasked(op, mask, value))
			return nil
		}
		values, err := p.numbers(expr.TypeMark)
		if err == nil {
			p.addMark(values.match(expr.Mark(), op))
		}
		return err
	}
	mask, t, err := p.number(expr.TypeMark)
	if err != nil {
		return err
	}
	if mask == 0 {
		return p.wrong(t, "a mask that is not 0")
	}
	op := p.op()
	value, t, err := p.number(expr.TypeMark)
	if err != nil {
		return err
	}
	if value&^mask != 0 {
		return p.wrong(t, "a value within the mask: no mark is ever equal to this one")
	}
	p.addMark(expr.MarkMasked(op, mask, value))
	return nil
}

// addMark adds a match by mark. The rule for replies leaves it out: a reply does not have the mark of the original packet.
func (p *parser) addMark(s expr.Statement) {
	if p.inexact = p.replies; !p.replies {
		p.add(s)
	}
}

// states are the words after `ct state`, for errors.
const states = "new, established, related, invalid or untracked"

// state reads the match after `ct`: `state established,related`, `state ! new,invalid`, `state { new, related }`. A
// list with commas and a list in braces mean the same, since a packet is in exactly one state.
func (p *parser) state() *SyntaxError {
	if err := p.expect("state"); err != nil {
		return err
	}
	first := p.peek()
	// "!" is nft's operator for none of several states. "!=" before several states compares all bits at once in nft,
	// and is true for every packet, so it is an error below.
	isNone := p.take("!")
	op := expr.Op(isNone)
	if !isNone {
		op = p.op()
	}
	var list expr.State
	read := func() *SyntaxError {
		t := p.next()
		s, ok := expr.StateByName(t.text)
		if !ok || t.kind != word {
			return p.wrong(t, states)
		}
		list |= s
		return nil
	}
	// With braces, list reads all states. Without braces it reads the first state, and the loop reads the others.
	braces := p.peek().text == "{"
	if _, err := p.list(read); err != nil {
		return err
	}
	for !braces && p.take(",") {
		if first.text == "!=" || first.text == "==" {
			return p.wrong(first, `"!" before several states for none of them, or braces around them`)
		}
		if err := read(); err != nil {
			return err
		}
	}
	// invalid and untracked do not depend on whether a connection is known, so rules with these states work in every
	// mode.
	p.asksState = p.asksState || list&(expr.StateNew|expr.StateEstablished|expr.StateRelated) != 0
	if !p.replies {
		p.add(expr.InState(op, list))
		return nil
	}
	// A connection was judged when it was new. So the rule for replies applies only if the rule matches new connections.
	isNew := list&expr.StateNew != 0
	p.leaveOut = p.leaveOut || isNew == bool(op)
	return nil
}
