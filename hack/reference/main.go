package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if len(os.Args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: go run ./hack/reference")
		os.Exit(2)
	}
	if err := write("."); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

// write writes all pages of the repository below root.
func write(root string) error {
	made, err := pages(root)
	if err != nil {
		return err
	}
	for name, text := range made {
		if err := os.WriteFile(filepath.Join(root, "docs", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// pages returns the text of each page by its name in docs. Its errors name an entry that lacks its description.
func pages(root string) (map[string]string, error) {
	flags, err := flagsPage()
	if err != nil {
		return nil, err
	}
	s, err := load(root, nil, agentPackages...)
	if err != nil {
		return nil, err
	}
	events, err := eventsPage(s)
	if err != nil {
		return nil, err
	}
	annotations, err := annotationsPage(s)
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"reference-flags.md": flags, "reference-events.md": events, "reference-annotations.md": annotations,
	}, nil
}

// begin is the first line of each page.
const begin = "<!-- made of the code: go run ./hack/reference -->\n"

// cell returns a text for a cell of a table.
func cell(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", `\|`)
}
