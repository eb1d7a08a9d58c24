package custom

import (
	"fmt"
	"io"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Rules are the content of a file. They are immutable after Parse.
type Rules struct {
	// Rules are in the order of the lines. Lines without a rule are left out.
	Rules []Rule
	// Replies judge the replies to packets that the Rules judge, for a mode in which established connections are judged again
	// with each packet. A reply has the verdict of the packet that it answers. Some matches cannot be applied to a reply, since
	// it does not have the mark, the message type or the rate of the original packets. Rules with such matches accept replies
	// or have no counterpart here; they never drop a reply.
	Replies []Rule
	Sets    []Set // the sets that the rules and replies refer to, each once
}

// Rule is a line of a file, in statements for a table of family inet.
type Rule struct {
	Statements []expr.Statement
	Comment    string // the text after `comment`; empty: none
	AsksState  bool   // the rule depends on a packet being new, established or related
}

// Set is a list in braces. Its name is a digest of its content, so equal lists have the same name in all files.
type Set struct {
	Name string
	// Either addresses of a family, or numbers of a type; then Family is 0.
	Family  sets.Family
	Addrs   sets.Addrs
	Type    expr.Datatype
	Numbers sets.Numbers
}

// maxFile is the maximum length of a file in bytes.
const maxFile = 1 << 20

// Parse reads rules for packets of a family. The caller must check the family before these rules: a rule without an
// address does not check it. name is the name of the file, for errors. An error about the content is a *SyntaxError
// with the first wrong line. Parse returns no rules then: half of a file could allow what the other half denies.
func Parse(name string, r io.Reader, f sets.Family) (Rules, error) {
	// A byte more than the limit tells a file at the limit from a longer file.
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return Rules{}, fmt.Errorf("read %s: %w", name, err)
	}
	if len(text) > maxFile {
		return Rules{}, fmt.Errorf("%s has more than %d bytes", name, maxFile)
	}
	b := builder{family: f, named: map[string]bool{}}
	for i, line := range strings.Split(string(text), "\n") {
		if err := b.line(line); err != nil {
			err.File, err.Line = name, i+1
			return Rules{}, err
		}
	}
	return b.rules, nil
}

// SyntaxError is the error for a line that is not a valid rule.
type SyntaxError struct {
	File         string
	Line, Column int    // counted from 1; the column in bytes
	Found        string // the text in the file, or "the end of the line"
	Want         string // the texts that the parser expected instead
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s:%d:%d: found %s, expected %s", e.File, e.Line, e.Column, e.Found, e.Want)
}

// builder collects the rules of a file.
type builder struct {
	family sets.Family
	rules  Rules
	named  map[string]bool // names of the sets in rules.Sets
}

// line parses a line twice, for the rule and for the rule for replies. An error of either pass is an error of the line.
// The sets of both passes go into the same list; equal lists have equal names.
func (b *builder) line(text string) *SyntaxError {
	tokens, err := lex(text)
	if err != nil || len(tokens) == 1 { // an empty line or a comment
		return err
	}
	p := parser{builder: b, tokens: tokens}
	rule, err := p.parse()
	if err != nil {
		return err
	}
	rule.AsksState = p.asksState
	b.rules.Rules = append(b.rules.Rules, rule)
	turned := parser{builder: b, tokens: tokens, replies: true}
	rule, err = turned.parse()
	if err == nil && !turned.leaveOut {
		b.rules.Replies = append(b.rules.Replies, rule)
	}
	return err
}

// addSet adds a set unless the rules have it already.
func (b *builder) addSet(s Set) {
	if !b.named[s.Name] {
		b.named[s.Name] = true
		b.rules.Sets = append(b.rules.Sets, s)
	}
}
