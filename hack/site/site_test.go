package main

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentation builds the site of this repository. The error has the faults of all pages. Then it follows every link of the
// built files, in the text and in the navigation, since a browser sees only those.
func TestDocumentation(t *testing.T) {
	dir := t.TempDir()
	if err := build("../..", dir); err != nil {
		t.Fatal(err)
	}
	files := htmlFiles(t, dir)
	reached := map[string]bool{}
	for waiting := []string{"index.html"}; len(waiting) > 0; waiting = waiting[1:] {
		name := waiting[0]
		if reached[name] {
			continue
		}
		reached[name] = true
		for _, target := range targets(files[name]) {
			file, anchor, _ := strings.Cut(target, "#")
			to := name
			if file != "" {
				to = path.Join(path.Dir(name), file)
			}
			if _, err := os.Stat(filepath.Join(dir, to)); err != nil {
				t.Errorf("%s: no file %s", name, target)
			}
			if anchor != "" && !strings.Contains(files[to], `id="`+anchor+`"`) {
				t.Errorf("%s: no anchor %s", name, target)
			}
			if files[to] != "" {
				waiting = append(waiting, to)
			}
		}
	}
	for name := range files {
		if !reached[name] {
			t.Errorf("%s is not reachable", name)
		}
	}
	if len(files) < 20 {
		t.Errorf("only %d pages", len(files))
	}
}

// htmlFiles returns the pages of a built site.
func htmlFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(file) != ".html" {
			return err
		}
		text, err := os.ReadFile(file)
		name, _ := filepath.Rel(dir, file)
		files[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

var attribute = regexp.MustCompile(`(?:href|src)="([^"]*)"`)

// targets returns the links of a page within the site.
func targets(page string) (all []string) {
	for _, m := range attribute.FindAllStringSubmatch(page, -1) {
		if !strings.HasPrefix(m[1], "https://") {
			all = append(all, m[1])
		}
	}
	return all
}

// small is a documentation without a fault: a page for each section.
var small = map[string]string{
	"README.md": "# Home\n\n[All](docs/README.md)\n\n## A `b`: c\n\n## A b c\n",
	"docs/README.md": "# Index\n\n## Quick start\n\n- [Home](../README.md)\n\n## Concepts\n\n- [One](one.md): text\n\n" +
		"## How-to\n\n## Reference\n\n## Design\n",
	"docs/one.md": "# One\n\n[home](../README.md#a-b-c-1) [code](x.go)\n\n![picture](x.svg)\n\n| a |\n| --- |\n| `b \\| c` |\n",
	"docs/x.go":   "package x",
	"docs/x.svg":  "<svg/>",
}

// buildSmall builds the small documentation with a changed file; an empty text removes the file.
func buildSmall(t *testing.T, name, text string) (dir string, err error) {
	t.Helper()
	root, dir := t.TempDir(), t.TempDir()
	files := map[string]string{name: text}
	for other, text := range small {
		if other != name {
			files[other] = text
		}
	}
	for name, text := range files {
		if text == "" {
			continue
		}
		if err := write(root, name, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return dir, build(root, dir)
}

func TestLinksOfSite(t *testing.T) {
	dir, err := buildSmall(t, "docs/x.go", "package x")
	if err != nil {
		t.Fatal(err)
	}
	page := htmlFiles(t, dir)["docs/one.html"]
	for _, want := range []string{
		`href="../index.html#a-b-c-1"`, `href="` + repository + `/blob/main/docs/x.go"`, `src="x.svg"`, `href="../style.css"`, `<code>b | c</code>`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s in:\n%s", want, page)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "docs/x.svg")); err != nil {
		t.Error(err)
	}
}

func TestFaults(t *testing.T) {
	for _, test := range []struct{ name, file, text, want string }{
		{"page in no section", "docs/two.md", "# Two\n", "docs/README.md: docs/two.md is in 0 sections, want one"},
		{"page in two sections", "docs/README.md", small["docs/README.md"] + "- [One](one.md)\n", "docs/one.md is in 2 sections"},
		{"section missing", "docs/README.md", strings.Replace(small["docs/README.md"], "## How-to\n", "", 1), "the sections are"},
		{"file missing", "docs/x.go", "", "docs/one.md: the link x.go leads to no file"},
		{"picture missing", "docs/x.svg", "", "docs/one.md: the link x.svg leads to no file"},
		{"page missing", "docs/one.md", "", "docs/README.md: docs/one.md is no page"},
		{"anchor missing", "README.md", "# Home\n\n[All](docs/README.md)\n", "the link ../README.md#a-b-c-1 leads to no heading"},
		{"anchor in itself", "docs/one.md", "# One\n\n[x](#two)\n", "docs/one.md: the link #two leads to no heading"},
		{"outside", "docs/one.md", "# One\n\n[x](../../etc)\n", "docs/one.md: the link ../../etc leads to no file"},
		{"no https", "docs/one.md", "# One\n\n[x](http://example.org)\n", "docs/one.md: the link http://example.org is not of https"},
		{"unreachable", "README.md", "# Home\n\n## A b c\n\n## A b c\n", "docs/one.md: no link leads from README.md to this page"},
		{"cells", "docs/one.md", "# One\n\n| a |\n| --- |\n| `b|c` |\n", "docs/one.md:5: the row has 2 cells, the heading of its table has 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, err := buildSmall(t, test.file, test.text)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
			if len(htmlFiles(t, dir)) > 0 {
				t.Error("a site with a fault is written")
			}
		})
	}
}
