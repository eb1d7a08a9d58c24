package tracing

import (
	"strings"
	"testing"
	"unicode"
)

// TestHostileNames: root in a pod chooses the names of tables, chains, sets and interfaces. They forge no line, and send nothing to the
// terminal.
func TestHostileNames(t *testing.T) {
	const name = "\x1b[2K\n12:00:00.000000 ALLOWED: forged\r\u202e"
	a := Answer{Interface: name, Reason: name, Steps: []Step{{Table: name, Chain: name, Handle: 1, Rule: name, Sets: []string{name}}}}
	var b strings.Builder
	if err := a.Print(&b, false); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if strings.Count(text, "\n") != 3 || strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
		t.Errorf("text: %q", text)
	}
}
