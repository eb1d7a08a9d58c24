package command

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

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
