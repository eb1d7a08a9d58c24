package policy

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the table of docs/limits.md")

const (
	limitsPage  = "../../docs/limits.md"
	limitsBegin = "<!-- the table is made of the code: go test ./cache/policy -run TestLimitsPage -update -->\n"
	limitsEnd   = "<!-- end of the table -->\n"
)

// docs/limits.md must list every limit with its default.
func TestLimitsPage(t *testing.T) {
	data, err := os.ReadFile(limitsPage)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(data), limitsBegin)
	table, after, closed := strings.Cut(rest, limitsEnd)
	if !found || !closed {
		t.Fatalf("%s has no place for the table", limitsPage)
	}
	var b strings.Builder
	b.WriteString("| limit | default | of |\n| --- | ---: | --- |\n")
	for _, d := range LimitDocs() {
		fmt.Fprintf(&b, "| `%s` | %d | %s |\n", d.Name, d.Default, d.Counts)
	}
	switch {
	case table == b.String():
	case !*update:
		t.Errorf("the table is not of this code; run with -update. Want:\n%s", b.String())
	default:
		if err := os.WriteFile(limitsPage, []byte(before+limitsBegin+b.String()+limitsEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSetLimit(t *testing.T) {
	l := DefaultLimits()
	for _, d := range LimitDocs() {
		if err := l.Set(d.Name, d.Default+1); err != nil || l.Get(d.Name) != d.Default+1 {
			t.Errorf("%s: %v, %d", d.Name, err, l.Get(d.Name))
		}
		if d.Default < 1 || d.Counts == "" {
			t.Errorf("%+v", d)
		}
	}
}
