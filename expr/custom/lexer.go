package custom

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// kind is what a token is.
type kind uint8

const (
	word   kind = iota // ip, 10.0.0.0/8, 10/second
	quoted             // "text", without its quotes
	sign               // { } , & ! != ==
	end                // of the line
)

// token is a piece of a line.
type token struct {
	kind   kind
	text   string
	column int // from 1, bytes
}

// is says whether it is that word.
func (t token) is(text string) bool { return t.kind == word && t.text == text }

// String is the token as an error calls it.
func (t token) String() string {
	switch t.kind {
	case end:
		return "the end of the line"
	case quoted:
		return `"` + t.text + `"`
	}
	return strconv.Quote(t.text)
}

// signs, the longer ones first.
var signs = []string{"!=", "==", "{", "}", ",", "&", "!"}

// lex splits a line. The last token is its end, where a comment begins too.
func lex(line string) ([]token, *SyntaxError) {
	var tokens []token
	for at := 0; ; {
		for at < len(line) && strings.IndexByte(" \t\r", line[at]) >= 0 {
			at++
		}
		if at == len(line) || line[at] == '#' {
			return append(tokens, token{end, "", at + 1}), nil
		}
		t, length := next(line[at:])
		t.column = at + 1
		if length == 0 {
			r, _ := utf8.DecodeRuneInString(line[at:])
			found := strconv.QuoteRune(r)
			want := "a word of nft's rule syntax"
			if line[at] == '"' {
				found, want = "a quote", "printable text without $, and a quote at its end"
			}
			return nil, &SyntaxError{Column: at + 1, Found: found, Want: want}
		}
		tokens = append(tokens, t)
		at += length
	}
}

// next is the token that the text begins with, and how long it is there; 0 if there is none.
func next(text string) (token, int) {
	if text[0] == '"' {
		content, _, closed := strings.Cut(text[1:], `"`)
		if !closed || !isPlain(content) {
			return token{}, 0
		}
		return token{kind: quoted, text: content}, len(content) + 2
	}
	for _, s := range signs {
		if strings.HasPrefix(text, s) {
			return token{kind: sign, text: s}, len(s)
		}
	}
	length := strings.IndexFunc(text, func(r rune) bool { return !isWordRune(r) })
	if length < 0 {
		length = len(text)
	}
	return token{kind: word, text: text[:length]}, length
}

// isWordRune says what words, numbers, addresses, ranges and rates are made of.
func isWordRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_.:/-*", r)
}

// isPlain says whether nft prints the text as it is and reads that back. It would take a $ for a variable.
func isPlain(text string) bool {
	if !utf8.ValidString(text) {
		return false
	}
	return !strings.ContainsFunc(text, func(r rune) bool { return r == '$' || !strconv.IsPrint(r) })
}
