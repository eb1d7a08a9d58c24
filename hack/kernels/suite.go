package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// suite is the tests of a package.
type suite struct {
	pkg    string // path below the root of the repository
	binary string // file
}

// buildSuites builds the test binaries of the packages that have kernel tests, as static programs.
func buildSuites(ctx context.Context, patterns []string, dir string) ([]suite, error) {
	packages, err := kernelTests(ctx, patterns)
	if err != nil {
		return nil, err
	}
	var list []suite
	for _, pkg := range packages {
		s := suite{pkg: pkg, binary: filepath.Join(dir, pkg+".test")}
		// The symbols are left out, since the whole image is in the memory of the machine.
		c := exec.CommandContext(ctx, "go", "test", "-c", "-ldflags", "-s -w", "-o", s.binary, "./"+pkg)
		// A static program needs no libraries of the kernel's release.
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		c.Stdout, c.Stderr = os.Stderr, os.Stderr
		if err := c.Run(); err != nil {
			return nil, fmt.Errorf("build the tests of %s: %w", pkg, err)
		}
		list = append(list, s)
	}
	return list, nil
}

// kernelTests returns the packages whose tests import the lab, which makes network namespaces.
func kernelTests(ctx context.Context, patterns []string) ([]string, error) {
	out, err := command(ctx, ".", "go", append([]string{"list", "-json=ImportPath,Module,TestImports,XTestImports"}, patterns...)...)
	if err != nil {
		return nil, err
	}
	var list []string
	for decoder := json.NewDecoder(strings.NewReader(out)); ; {
		var p struct {
			ImportPath                string
			Module                    struct{ Path string }
			TestImports, XTestImports []string
		}
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(p.ImportPath, p.Module.Path+"/")
		lab := p.Module.Path + "/internal/test/lab"
		// The lab's own tests cannot import the lab: they are in its package.
		if p.ImportPath == lab || slices.Contains(p.TestImports, lab) || slices.Contains(p.XTestImports, lab) {
			list = append(list, name)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no kernel tests in %s", strings.Join(patterns, " "))
	}
	return list, nil
}
