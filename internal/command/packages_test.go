package command

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// A package or a type beyond these sizes needs a reason in docs/architecture.md.
const (
	maxFiles   = 25
	maxMethods = 40
)

// packageFiles returns the Go files of each package of the repository without tests, by the folder of the package. A package
// that consists of tests only has an empty list.
func packageFiles(t *testing.T) map[string][]string {
	t.Helper()
	packages := map[string][]string{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch name := d.Name(); {
		case err != nil:
			return err
		case d.IsDir() && (name == ".git" || name == "bin" || name == "testdata"):
			return fs.SkipDir
		case filepath.Ext(name) != ".go":
			return nil
		}
		dir, err := filepath.Rel("../..", filepath.Dir(path))
		files := packages[dir]
		if !strings.HasSuffix(path, "_test.go") {
			files = append(files, path)
		}
		packages[dir] = files
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) < 30 {
		t.Fatalf("only %d packages", len(packages))
	}
	return packages
}

// methods counts the methods of each type in the files.
func methods(t *testing.T, files []string) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv != nil {
				counts[receiver(f.Recv.List[0].Type)]++
			}
		}
	}
	return counts
}

// receiver returns the name of a method's type, without its pointer and type parameters.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// TestLargePackages checks that docs/architecture.md lists, with its reason, each package with more than 25 files and each type
// with more than 40 methods, and nothing else.
func TestLargePackages(t *testing.T) {
	reasons := map[string]bool{}
	_, list, _ := strings.Cut(readText(t, "../../docs/architecture.md"), "\n## Large packages and types\n")
	list, _, _ = strings.Cut(list, "\n## ")
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| \\S").FindAllStringSubmatch(list, -1) {
		reasons[m[1]] = true
	}
	large := func(name string, count, limit int, unit string) {
		if count <= limit {
			return
		}
		if !reasons[name] {
			t.Errorf("%s has %d %s, and docs/architecture.md gives no reason", name, count, unit)
		}
		delete(reasons, name)
	}
	for dir, files := range packageFiles(t) {
		large(dir, len(files), maxFiles, "files")
		for name, count := range methods(t, files) {
			large(dir+"."+name, count, maxMethods, "methods")
		}
	}
	for name := range reasons {
		t.Errorf("%s needs no reason", name)
	}
}

// docPicture matches a line of a picture in a comment: an indented line with an arrow.
var docPicture = regexp.MustCompile("(?m)^//\t.*(─►|◄─|->)")

// TestDocFiles checks that each package has its comment and a picture of its data in doc.go, and in no other file.
func TestDocFiles(t *testing.T) {
	for dir, files := range packageFiles(t) {
		hasDoc := false
		for _, path := range files {
			comment, _, _ := strings.Cut(readText(t, path), "\npackage ")
			isDoc := filepath.Base(path) == "doc.go"
			hasDoc = hasDoc || isDoc
			if isDoc && !docPicture.MatchString(comment) {
				t.Errorf("%s has no picture", path)
			} else if !isDoc && regexp.MustCompile(`(?m)^// (Package|Command) `).MatchString(comment) {
				t.Errorf("%s has a comment of the package, beside doc.go", path)
			}
		}
		if !hasDoc {
			t.Errorf("%s has no doc.go", dir)
		}
	}
}

// TestImportRules checks that the linter has a rule for the imports of each package. A package in a module that does not require
// the module of the agent needs none.
func TestImportRules(t *testing.T) {
	var config struct {
		Linters struct {
			Settings struct {
				Depguard struct {
					Rules map[string]struct{ Files []string }
				}
			}
		}
	}
	if err := yaml.Unmarshal([]byte(readText(t, "../../.golangci.yml")), &config); err != nil {
		t.Fatal(err)
	}
	var patterns []*regexp.Regexp
	for _, rule := range config.Linters.Settings.Depguard.Rules {
		for _, pattern := range rule.Files {
			if !strings.HasPrefix(pattern, "!") {
				patterns = append(patterns, globRegexp(pattern))
			}
		}
	}
	used := map[*regexp.Regexp]bool{}
	for dir := range packageFiles(t) {
		module, err := os.ReadFile(filepath.Join("../..", dir, "go.mod"))
		if err == nil && !strings.Contains(string(module), "multi-networkpolicy-nftables => ") && dir != "." {
			continue
		}
		hasRule := false
		for _, p := range patterns {
			if p.MatchString(filepath.Join("/base", dir, "x.go")) {
				hasRule, used[p] = true, true
			}
		}
		if !hasRule {
			t.Errorf("%s has no rule in .golangci.yml", dir)
		}
	}
	for _, p := range patterns {
		if !used[p] {
			t.Errorf("no package is in %s", p)
		}
	}
}

// globRegexp translates a pattern of the linter for files below /base.
func globRegexp(pattern string) *regexp.Regexp {
	text := regexp.QuoteMeta(strings.ReplaceAll(pattern, "${base-path}", "/base"))
	text = strings.ReplaceAll(text, `\*\*`, ".*")
	return regexp.MustCompile("^" + strings.ReplaceAll(text, `\*`, "[^/]*") + "$")
}
