package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// goPackage has the fields of `go list -json` that mutants need.
// Imports are those of the package and of its tests, so that the packages that use it can be found.
type goPackage struct {
	ImportPath, Dir                             string
	GoFiles, Imports, TestImports, XTestImports []string
	Module                                      struct{ Path string }
	duration                                    time.Duration // of the tests without a mutant
}

// failed matches the name of a test that failed, or that ran when the time was over.
var (
	errNotCompiled = errors.New("the mutant does not compile")
	failed         = regexp.MustCompile(`(?:--- FAIL: |running tests:\n\t)(\S+)`)
)

// list returns the selected packages.
func (o options) list() ([]*goPackage, error) {
	out, err := o.goTool(append([]string{"list", "-json"}, o.packages...)...)
	var packages []*goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); err == nil && d.More(); {
		packages = append(packages, &goPackage{})
		err = d.Decode(packages[len(packages)-1])
	}
	return packages, err
}

// goTool returns the standard output of the go command.
func (o options) goTool(args ...string) ([]byte, error) {
	c := exec.Command("go", args...)
	c.Dir = o.dir
	return c.Output()
}

// name returns the import path without the path of the module.
func (p *goPackage) name() string { return "." + strings.TrimPrefix(p.ImportPath, p.Module.Path) }

// try runs the tests of the package with the mutant, then the tests of its importers, up to the first failure. It returns the
// package and the name of the test that failed; the package is nil if the mutant survives.
func (m *place) try(o options, packages []*goPackage) (tester *goPackage, test string, err error) {
	dir, err := os.MkdirTemp("", "mutant-")
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// The overlay makes the go command read the mutant in place of the source, so the work tree stays as it is.
	original, broken, overlay := filepath.Join(m.pkg.Dir, m.file), filepath.Join(dir, m.file), filepath.Join(dir, "overlay.json")
	source, err := os.ReadFile(original)
	if err == nil {
		err = os.WriteFile(broken, slices.Concat(source[:m.start], []byte(m.broken), source[m.end:]), 0o644)
	}
	if err == nil {
		err = os.WriteFile(overlay, fmt.Appendf(nil, `{"Replace": {%q: %q}}`, original, broken), 0o644)
	}
	// The package's own tests come first: they are the likeliest to notice it.
	testers := []*goPackage{m.pkg}
	for _, p := range packages {
		if p != m.pkg && slices.Contains(slices.Concat(p.Imports, p.TestImports, p.XTestImports), m.pkg.ImportPath) {
			testers = append(testers, p)
		}
	}
	for _, p := range testers {
		if err == nil {
			test, err = p.test(o, overlay)
		}
		if err != nil || test != "" {
			return p, test, err
		}
	}
	return nil, "", nil
}

// test runs the tests of the package and returns the name of the first test that fails. The overlay may be "".
// -count=1 keeps the go command from using results of an earlier run. The first failure is enough.
func (p *goPackage) test(o options, overlay string) (string, error) {
	out, err := o.goTool("test", "-short", "-vet=off", "-count=1", "-failfast", "-timeout", o.limit.String(),
		"-skip", timed, "-overlay", overlay, p.ImportPath)
	switch name := failed.FindSubmatch(out); {
	// No failure, or the go command could not run at all.
	case err == nil || !errors.As(err, new(*exec.ExitError)):
		return "", err
	case bytes.Contains(out, []byte("[build failed]")):
		return "", errNotCompiled
	case name != nil:
		return string(name[1]), nil
	}
	return "(the process of the tests)", nil
}
