package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/yuin/goldmark/ast"
	extast "github.com/yuin/goldmark/extension/ast"
)

const comparison = "docs/comparison.md"

// permanent matches an address on GitHub whose content does not change with the branches, or a thread.
var permanent = regexp.MustCompile(`^https://github\.com/[\w.-]+/[\w.-]+/((blob|tree|commit)/[0-9a-f]{40}\b|issues/\d|pull/\d)`)

// TestComparison checks that each cell of the comparison links its proof. For this agent the proof is a page or a test that exists. For
// another implementation it is a permanent link, or the cell is "unknown".
func TestComparison(t *testing.T) {
	text, err := os.ReadFile("../../" + comparison)
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range comparisonFaults(parsePage(comparison, text), "../..") {
		t.Error(fault)
	}
}

// comparisonFaults returns the faults of the table with a column for this agent, or that there is no such table.
func comparisonFaults(p *page, root string) (faults []string) {
	rows := 0
	_ = ast.Walk(p.tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if n.Kind() != extast.KindTableRow || !entering || !strings.Contains(p.plain(n.Parent().FirstChild()), "this agent") {
			return ast.WalkContinue, nil
		}
		rows++
		column := 0
		for c := n.FirstChild(); c != nil; c = c.NextSibling() {
			for _, fault := range cellFaults(p, c, column, root) {
				faults = append(faults, p.plain(n.FirstChild())+": "+p.plain(c)+": "+fault)
			}
			column++
		}
		return ast.WalkContinue, nil
	})
	if rows < 20 {
		faults = append(faults, "the table is too short")
	}
	return faults
}

// cellFaults returns the faults of a cell. Column 0 has the questions, column 1 is this agent.
func cellFaults(p *page, cell ast.Node, column int, root string) (faults []string) {
	var links []*ast.Link
	_ = ast.Walk(cell, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if l, ok := n.(*ast.Link); ok && entering {
			links = append(links, l)
		}
		return ast.WalkContinue, nil
	})
	if len(links) == 0 && column > 0 && (column == 1 || p.plain(cell) != "unknown") {
		return []string{"no proof"}
	}
	for _, l := range links {
		to := string(l.Destination)
		switch {
		case column > 1 && !permanent.MatchString(to):
			faults = append(faults, to+" is not permanent")
		case column == 1 && strings.Contains(to, "://"):
			faults = append(faults, to+" is not of this project")
		case column == 1 && strings.HasPrefix(p.plain(l), "Test"):
			// TestDocumentation finds links to nothing; this is about the test in the file.
			code, err := os.ReadFile(filepath.Join(root, "docs", to))
			if err != nil || !strings.Contains(string(code), "func "+p.plain(l)+"(") {
				faults = append(faults, to+" has no such test")
			}
		}
	}
	return faults
}

// TestComparisonFaults breaks a cell at a time.
func TestComparisonFaults(t *testing.T) {
	text, err := os.ReadFile("../../" + comparison)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ old, new, want string }{
		{"[yes](examples.md)", "yes", "`endPort`: yes: no proof"},
		{"| unknown |", "| probably |", "Virtual machines: probably: no proof"},
		{"[TestDrift]", "[TestDrifting]", "../internal/agent/drift_test.go has no such test"},
		{"blob/cbf2b11730b9fb0477d8d578129609df0c51f06b/pkg/server/options.go", "blob/main/pkg/server/options.go", "is not permanent"},
		{"[no release yet](../CHANGELOG.md)", "[yes](https://example.org)", "Use: yes: https://example.org is not of this project"},
	} {
		broken := strings.Replace(string(text), test.old, test.new, 1)
		want := strings.ReplaceAll(test.want, "`", "")
		faults := comparisonFaults(parsePage(comparison, []byte(broken)), "../..")
		if !slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, want) }) {
			t.Errorf("%s: got %q, want %s", test.new, faults, want)
		}
	}
}
