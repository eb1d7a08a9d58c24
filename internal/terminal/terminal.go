package terminal

import (
	"strings"
	"unicode"
)

// Line returns the text as a part of a line: each character that is not printable becomes a blank.
func Line(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}
