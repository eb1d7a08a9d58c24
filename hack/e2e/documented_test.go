package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestDocumented compares the commands of the pages with the commands of this test. It needs no cluster.
func TestDocumented(t *testing.T) {
	if err := undocumented("../.."); err != nil {
		t.Error(err)
	}
}

func TestCommands(t *testing.T) {
	page := "a `kubectl`\n```sh\nkubectl get \\\n  pods    # all\n\n  # none\nnft list  tables\n```\n```\nother\n```\n" +
		"1. b\n\n   ```sh\n   kubectl apply -k x\n   ```\n"
	want := []string{"kubectl get pods", "nft list tables", "kubectl apply -k x"}
	if got := commands(page); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestMigrationCommands compares the commands that the migration runs on nodes with docs/migration.md.
func TestMigrationCommands(t *testing.T) {
	page, err := os.ReadFile("../../docs/migration.md")
	if err != nil {
		t.Fatal(err)
	}
	oneBlank := func(text string) string {
		return strings.Join(strings.Fields(strings.ReplaceAll(text, "\\\n", "")), " ")
	}
	for _, command := range []string{flushCommand, copyCommand, dropCopyCommand} {
		if !strings.Contains(oneBlank(string(page)), oneBlank(command)) {
			t.Errorf("docs/migration.md lacks the command %s", command)
		}
	}
}
