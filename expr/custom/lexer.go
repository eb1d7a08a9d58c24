package custom

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// kind is the kind of a token.
type kind uint8

const (
	word   kind = iota // ip, 10.0.0.0/8, 10/second
	quoted             // "text", without its quotes
	sign               // { } , & ! != ==
	end                // of the line
)

// token is a word, a quoted text or a sign of a line, or the line's end. text is empty for the end.
type token struct {
	kind   kind
	text   string
	column int // counted from 1, in bytes
}

// is reports whether the token is the given word. A quoted text is no word.
func (t token) is(text string) bool { return t.kind == word && t.text == text }

// String returns the token as errors show it.
func (t token) String() string {
	switch t.kind {
	case end:
		return "the end of the line"
	case quoted:
		return `"` + t.text + `"`
	}
	return strconv.Quote(t.text)
}

// signs holds "!=" before "!", since lex takes the first sign that fits.
var signs = []string{"!=", "==", "{", "}", ",", "&", "!"}

// lex splits a line into tokens. The last token is the end of the line, or the start of a comment with #.
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
		// next does not know the position in the line.
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

// next returns the token at the start of the text, and its length in the text in bytes, with quotes. The length is 0 if
// there is no valid token. The text must not be empty. Signs come before words, since no word contains a sign.
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

// isWordRune reports whether words, numbers, addresses, ranges and rates may contain the character.
func isWordRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_.:/-*", r)
}

// isPlain reports whether nft prints the text unchanged and can read it back. nft would read a $ as a variable.
func isPlain(text string) bool {
	if !utf8.ValidString(text) {
		return false
	}
	return !strings.ContainsFunc(text, func(r rune) bool { return r == '$' || !strconv.IsPrint(r) })
}
