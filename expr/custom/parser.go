package custom

import (
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// parser reads a line by recursive descent. Each method reads a part of the grammar, and returns a SyntaxError at the
// first token that does not fit. A parser is used for a single pass over a line: the second pass, for replies, has a
// parser of its own.
type parser struct {
	*builder
	tokens []token // the last token is the end, and is never passed
	at     int     // index of the next token
	// parts are the statements up to now. finish turns them into the statements of the rule.
	parts      []part
	hasVerdict bool // a verdict was read: only a comment may follow

	asksState bool // see Rule.AsksState

	replies  bool // make the rule for replies instead of the rule itself
	inexact  bool // the rule for replies lacks a match, so it matches too much and may only accept
	leaveOut bool // the rule has no counterpart for replies
}

// peek returns the next token without passing it.
func (p *parser) peek() token { return p.tokens[p.at] }

// next returns the next token and passes it.
func (p *parser) next() token {
	t := p.peek()
	if t.kind != end {
		p.at++
	}
	return t
}

// take passes a word or sign if it is the next token, and reports whether it was.
func (p *parser) take(text string) bool {
	t := p.peek()
	if t.kind != word && t.kind != sign || t.text != text {
		return false
	}
	p.at++
	return true
}

// expect passes a word or sign that must be the next token. Without it, the error names the token that was found.
func (p *parser) expect(text string) *SyntaxError {
	if !p.take(text) {
		return p.wrong(p.peek(), `"`+text+`"`)
	}
	return nil
}

// wrong returns the error for a token in the wrong place. The builder adds file and line.
func (p *parser) wrong(t token, want string) *SyntaxError {
	return &SyntaxError{Column: t.column, Found: t.String(), Want: want}
}

// statements lists the words with which a statement can start, for errors.
const statements = "ip, ip6, tcp, udp, sctp, th, icmp, icmpv6, meta, iifname, oifname, ct, counter, log, limit, " +
	"accept, drop, reject, return or comment"

// parse reads the whole line.
func (p *parser) parse() (Rule, *SyntaxError) {
	// Users of multi-networkpolicy-iptables have files of iptables rules, which start with an option such as -A.
	if t := p.peek(); strings.HasPrefix(t.text, "-") {
		return Rule{}, p.wrong(t, "a rule in the syntax of nft, not of iptables: "+statements)
	}
	var rule Rule
	for p.peek().kind != end {
		t := p.next()
		if t.is("comment") {
			var err *SyntaxError
			if rule.Comment, err = p.comment(); err != nil {
				return rule, err
			}
			break
		}
		if p.hasVerdict {
			return rule, p.wrong(t, "the end of the rule, or a comment: a verdict is the last of a rule")
		}
		if err := p.statement(t); err != nil {
			return rule, err
		}
	}
	var err *SyntaxError
	// The statements are made at the end, because an early statement can depend on a later statement.
	rule.Statements, err = p.finish()
	// Without a verdict, a rule only counts or logs, and replies are neither counted nor logged.
	p.leaveOut = p.leaveOut || !p.hasVerdict
	return rule, err
}

// statement reads the statement that starts with a word. t has been passed already.
func (p *parser) statement(t token) *SyntaxError {
	if t.kind != word {
		return p.wrong(t, statements)
	}
	switch t.text {
	case "ip":
		return p.address(t, sets.V4)
	case "ip6":
		return p.address(t, sets.V6)
	case "tcp":
		return p.port(t, expr.TCP)
	case "udp":
		return p.port(t, expr.UDP)
	case "sctp":
		return p.port(t, expr.SCTP)
	case "th":
		return p.port(t, expr.AnyTransport)
	case "icmp":
		return p.icmpType(t, sets.V4)
	case "icmpv6":
		return p.icmpType(t, sets.V6)
	case "ct":
		return p.state()
	case "meta":
		// These three words may also stand without meta in front.
		if t = p.next(); t.kind == word && metaKeys[t.text] {
			return p.meta(t)
		}
		return p.wrong(t, "l4proto, iifname, oifname or mark")
	case "iifname", "oifname", "mark":
		return p.meta(t)
	}
	return p.action(t)
}

// action reads a statement that is not a match. t has been passed already. The rule for replies neither counts nor
// logs.
func (p *parser) action(t token) *SyntaxError {
	switch t.text {
	case "counter":
		if !p.replies {
			p.add(expr.Counter())
		}
		return nil
	case "log":
		return p.log()
	case "limit":
		return p.limit()
	case "reject":
		p.hasVerdict = true
		return p.reject()
	case "accept":
		p.verdict(expr.Accept())
	case "drop":
		p.verdict(expr.Drop())
	case "return":
		p.verdict(expr.Return())
	default:
		return p.wrong(t, statements)
	}
	return nil
}

// verdict adds accept, drop or return. An inexact rule for replies with another verdict than accept is left out. The
// verdict is the last statement of a rule, so inexact is final at this point.
func (p *parser) verdict(s expr.Statement) {
	p.hasVerdict = true
	p.leaveOut = p.leaveOut || p.inexact && s.Text != expr.Accept().Text
	p.add(s)
}

// maxComment is nft's limit for a comment in bytes.
const maxComment = 127

// comment reads the text of a comment and the end of the rule.
func (p *parser) comment() (string, *SyntaxError) {
	t := p.next()
	if t.kind != quoted && t.kind != word || len(t.text) > maxComment {
		return "", p.wrong(t, "a text of at most 127 bytes")
	}
	if after := p.peek(); after.kind != end {
		return "", p.wrong(after, "the end of the line: a comment is the last of a rule")
	}
	return t.text, nil
}
