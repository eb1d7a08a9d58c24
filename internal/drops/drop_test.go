package drops

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// TestPrintHostileNames: the creator of a pod chooses the names of its interfaces. They forge no line, and send nothing to the terminal.
func TestPrintHostileNames(t *testing.T) {
	d := Drop{Namespace: "shop", Pod: "web", Interface: "\x1b[2K\r\n\u202ex\u2028", Policies: []string{"shop/a"}, MorePolicies: 3}
	var b strings.Builder
	if err := d.Print(&b, false); err != nil {
		t.Fatal(err)
	}
	line, rest, _ := strings.Cut(b.String(), "\n")
	if rest != "" || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) || !strings.HasSuffix(line, "isolated by shop/a and 3 more") {
		t.Errorf("text: %q", b.String())
	}
	b.Reset()
	if err := d.Print(&b, true); err != nil {
		t.Fatal(err)
	}
	var back Drop
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil || strings.Count(b.String(), "\n") != 1 || back.Interface != d.Interface {
		t.Errorf("JSON: %q, %v", b.String(), err)
	}
	if !slices.Equal(back.Policies, d.Policies) || back.MorePolicies != 3 {
		t.Errorf("policies: %+v", back)
	}
}
