package command

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	docLink    = regexp.MustCompile(`!?\[[^\]\n]*(?:\n[^\]\n]*)?\]\(([^)\s]+)\)`)
	docHeading = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	docCode    = regexp.MustCompile("(?s)```.*?```")
	notInSlug  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// slug returns the anchor that GitHub makes for a heading.
func slug(heading string) string {
	heading = strings.ToLower(strings.TrimSpace(docLink.ReplaceAllString(heading, "$1")))
	return strings.ReplaceAll(notInSlug.ReplaceAllString(heading, ""), " ", "-")
}

// Every link leads to a file of the repository and a heading in it, or to another site by https.
func TestLinks(t *testing.T) {
	pages := map[string]string{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, ".md") {
			pages[path] = docCode.ReplaceAllString(readText(t, path), "")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	for page, text := range pages {
		for _, m := range docLink.FindAllStringSubmatch(text, -1) {
			links++
			target, anchor, _ := strings.Cut(m[1], "#")
			switch {
			case strings.HasPrefix(target, "https://"):
				continue
			case strings.Contains(target, "://"):
				t.Errorf("%s: %s", page, m[1])
				continue
			}
			path := page
			if target != "" {
				path = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: %s leads nowhere", page, m[1])
			} else if anchor != "" && !hasHeading(pages[path], anchor) {
				t.Errorf("%s: %s has no such heading", page, m[1])
			}
		}
	}
	if len(pages) < 10 || links < 30 {
		t.Errorf("%d links on %d pages", links, len(pages))
	}
}

func hasHeading(text, anchor string) bool {
	for _, m := range docHeading.FindAllStringSubmatch(text, -1) {
		if slug(m[1]) == anchor {
			return true
		}
	}
	return false
}

// docs/architecture.md lists exactly the directories with Go code.
func TestPackageList(t *testing.T) {
	listed := map[string]bool{}
	_, list, _ := strings.Cut(readText(t, "../../docs/architecture.md"), "## Packages")
	list, _, _ = strings.Cut(list, "\n## ")
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| \\S").FindAllStringSubmatch(list, -1) {
		listed[m[1]] = true
	}
	for _, root := range []string{"sets", "expr", "engine", "cache", "informers", "internal"} {
		err := filepath.WalkDir("../../"+root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return err
			}
			files, err := filepath.Glob(filepath.Join(path, "*.go"))
			if name := strings.TrimPrefix(path, "../../"); len(files) > 0 && !listed[name] {
				t.Errorf("package %s is not in the list", name)
			} else if len(files) > 0 {
				delete(listed, name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name := range listed {
		t.Errorf("there is no package %s", name)
	}
}

// TestPlacesToChange checks that the files in the list of places to change exist. A name without a folder is in the folder of the
// name before.
func TestPlacesToChange(t *testing.T) {
	_, list, _ := strings.Cut(readText(t, "../../docs/architecture.md"), "\n## Where do I change X?\n")
	list, _, _ = strings.Cut(list, "\n## ")
	files := regexp.MustCompile("`([^`]+\\.go)`").FindAllStringSubmatch(list, -1)
	dir := ""
	for _, m := range files {
		if strings.Contains(m[1], "/") {
			dir = filepath.Dir(m[1])
		}
		path := filepath.Join(dir, filepath.Base(m[1]))
		if _, err := os.Stat(filepath.Join("../..", path)); err != nil {
			t.Errorf("there is no %s", path)
		}
	}
	if len(files) < 20 {
		t.Errorf("only %d files", len(files))
	}
}
