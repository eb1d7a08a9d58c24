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

// Of three parts, the last exceeds a limit of two, and the policy lacks it.
func TestPartsOverLimit(t *testing.T) {
	networks := "net"
	for name, tt := range map[string]struct {
		ingress string
		count   func(rules []Rule) int
	}{
		"policy-rules": {`[{}, {}, {}]`, func(rules []Rule) int { return len(rules) }},
		"policy-peers": {
			`[{"from": [{"podSelector": {"matchLabels": {"a": "1"}}}, {"podSelector": {"matchLabels": {"a": "2"}}}, {"podSelector": {}}]}]`,
			func(rules []Rule) int { return len(rules[0].Peers.Peers) },
		},
		"policy-blocks": {
			`[{"from": [{"ipBlock": {"cidr": "10.0.0.0/24"}}, {"ipBlock": {"cidr": "10.0.1.0/24"}}, {"ipBlock": {"cidr": "10.0.2.0/24"}}]}]`,
			func(rules []Rule) int { return len(rules[0].Peers.Blocks) },
		},
		"policy-ports": {
			`[{"ports": [{"port": 1}, {"port": 3}, {"port": 5}]}]`,
			func(rules []Rule) int { return rules[0].Ports.Len() },
		},
	} {
		limits := DefaultLimits()
		if err := limits.Set(name, 2); err != nil {
			t.Fatal(err)
		}
		spec := []byte(`{"podSelector": {}, "ingress": ` + tt.ingress + `}`)
		p := Compile(Object{Key: Key{Namespace: "ns", Name: "p"}, Networks: &networks, Spec: spec}, &limits)
		if n := tt.count(p.Sections[0].Rules); n != 2 || !p.OverLimit || len(p.Problems) != 1 {
			t.Errorf("%s: %d parts, over the limit %t, %v", name, n, p.OverLimit, p.Problems)
		}
	}
}
