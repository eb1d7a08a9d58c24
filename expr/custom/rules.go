package custom

import (
	"fmt"
	"io"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Rules are what a file says.
type Rules struct {
	Rules []Rule
	// Replies are for packets the other way, of connections that the Rules are asked about with each packet: what they
	// allow passes, what they do not does not. Where a rule cannot be turned around, since it looks at what a reply does not
	// show (a mark, a message type, a rate), it allows replies and does not drop them.
	Replies []Rule
	Sets    []Set // that the rules refer to, each once
}

// Rule is one line.
type Rule struct {
	Statements []expr.Statement
	Comment    string
	AsksState  bool // whether a packet is new, established or related
}

// Set is a list in braces. Its name follows from its content, so the same list has the same name in all files.
type Set struct {
	Name string
	// Either addresses of one family, or numbers of one type.
	Family  sets.Family
	Addrs   sets.Addrs
	Type    expr.Datatype
	Numbers sets.Numbers
}

// maxFile is how long a file can be, bytes.
const maxFile = 1 << 20

// Parse reads rules for packets of one family. Who uses them sees to it that no others get there: what a rule does not
// mention it does not look at. name is the file's, for errors; an error about the content is a *SyntaxError.
func Parse(name string, r io.Reader, f sets.Family) (Rules, error) {
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

// SyntaxError is a line that is no rule.
type SyntaxError struct {
	File         string
	Line, Column int    // from 1; the column in bytes
	Found        string // as it is in the file, or "the end of the line"
	Want         string // what could be there
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s:%d:%d: found %s, expected %s", e.File, e.Line, e.Column, e.Found, e.Want)
}

// builder collects the rules of a file.
type builder struct {
	family sets.Family
	rules  Rules
	named  map[string]bool // sets that are in rules
}

func (b *builder) line(text string) *SyntaxError {
	tokens, err := lex(text)
	if err != nil || len(tokens) == 1 { // only its end
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

func (b *builder) addSet(s Set) {
	if !b.named[s.Name] {
		b.named[s.Name] = true
		b.rules.Sets = append(b.rules.Sets, s)
	}
}
