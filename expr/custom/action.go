package custom

import (
	"strconv"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/uapi"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// log reads the rest of a log statement: prefix and level, in any order, each at most once. The rule for replies logs nothing.
func (p *parser) log() *SyntaxError {
	l := expr.Log{Level: expr.LogWarning}
	hasLevel := false
	for {
		// The peek keeps the word for the next statement if it belongs to no part of log.
		switch t := p.peek(); {
		case !l.HasPrefix && p.take("prefix"):
			// nft also takes a word without quotes.
			t = p.next()
			if t.kind != word && t.kind != quoted || len(t.text) > expr.MaxLogPrefix {
				return p.wrong(t, "a text of at most 127 bytes")
			}
			l.Prefix, l.HasPrefix = t.text, true
		case !hasLevel && p.take("level"):
			t = p.next()
			if l.Level, hasLevel = expr.LogLevelByName(t.text); !hasLevel || t.kind != word {
				return p.wrong(t, "emerg, alert, crit, err, warn, notice, info or debug")
			}
		// These are parts of nft's log statement that the agent does not have. An error here names them; otherwise they
		// would be reported as an unknown statement.
		case t.is("group"), t.is("snaplen"), t.is("flags"), t.is("queue-threshold"), t.is("prefix"), t.is("level"):
			return p.wrong(t, "a prefix or a level, each once")
		default:
			if !p.replies {
				p.add(l.Statement())
			}
			return nil
		}
	}
}

// limit reads the rest of a limit statement, after the word limit: `rate [over] 10/second [burst 20 packets]`. The rule
// for replies has no limit, so it may only accept.
func (p *parser) limit() *SyntaxError {
	if err := p.expect("rate"); err != nil {
		return err
	}
	l := expr.Limit{Over: p.take("over"), Burst: expr.DefaultBurst}
	t := p.next()
	// The lexer reads 10/second as a single word.
	count, unit, _ := strings.Cut(t.text, "/")
	var okRate, okUnit bool
	l.Rate, okRate = parseCount(count)
	l.Unit, okUnit = expr.LimitUnitByName(unit)
	if t.kind != word || !okRate || !okUnit {
		return p.wrong(t, "a rate of packets like 10/second, /minute, /hour or /day")
	}
	if p.take("burst") {
		t := p.next()
		var ok bool
		if l.Burst, ok = parseCount(t.text); !ok || t.kind != word {
			return p.wrong(t, "a number of packets")
		}
		if err := p.expect("packets"); err != nil {
			return err
		}
	}
	// A reply has no rate of its own: the rate of the replies says nothing about the rate of the packets that they
	// answer.
	if p.inexact = p.replies; !p.replies {
		p.add(l.Statement())
	}
	return nil
}

// parseCount reads a decimal number greater than zero. A leading zero or sign is an error.
func parseCount(text string) (uint32, bool) {
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err == nil && text[0] != '0' && text[0] != '+'
}

// reject reads the rest of a reject statement. The statement is made by finish, since a plain `reject` depends on the
// family of the rule. The rule for replies drops: a reply must not be answered with an error.
func (p *parser) reject() *SyntaxError {
	r := &rejection{}
	reject := part{token: p.tokens[p.at-1], reject: r}
	if p.take("with") {
		if err := p.rejectWith(r); err != nil {
			return err
		}
	}
	if !p.replies {
		p.parts = append(p.parts, reject)
		return nil
	}
	if r.isReset { // such a rule is about TCP only
		tcp := sets.NumberRange{From: uapi.IPPROTO_TCP, To: uapi.IPPROTO_TCP}
		p.parts = append(p.parts, part{
			token: reject.token, statement: expr.L4Protocol().Range(expr.Is, tcp), protocol: uapi.IPPROTO_TCP, hasProtocol: true,
		})
	}
	p.verdict(expr.Drop())
	return nil
}

// rejectWith reads the kind and the code after `reject with`.
func (p *parser) rejectWith(r *rejection) *SyntaxError {
	t := p.next()
	switch {
	case t.is("tcp"):
		r.isReset = true
		return p.expect("reset")
	case t.is("icmp"):
		r.kind = expr.RejectICMP
	case t.is("icmpv6"):
		r.kind = expr.RejectICMPv6
	case t.is("icmpx"):
		r.kind = expr.RejectICMPX
	default:
		return p.wrong(t, "icmp, icmpv6, icmpx or tcp reset")
	}
	// A kind of ICMP for another family would never match a packet of this file.
	for _, f := range sets.Families {
		if r.kind == expr.RejectFamily(f) {
			if err := p.ofFamily(t, f); err != nil {
				return err
			}
		}
	}
	p.take("type")
	r.hasKind = true
	return p.rejectCode(r, t.text)
}

// rejectCode reads the name or the number of a code. Numbers are accepted only if the kind has a name for them: nft
// could print no other number in a way that it reads again.
func (p *parser) rejectCode(r *rejection, kind string) *SyntaxError {
	t := p.next()
	if t.kind == word {
		if code, ok := r.kind.Code(t.text); ok {
			r.code = code
			return nil
		}
		if n, err := strconv.ParseUint(t.text, 10, 8); err == nil && r.kind.HasCode(uint32(n)) {
			r.code = byte(n)
			return nil
		}
	}
	return p.wrong(t, "a code of "+kind+" for an unreachable destination, like port-unreachable")
}
