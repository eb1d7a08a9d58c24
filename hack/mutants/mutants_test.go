package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var example = map[string]string{
	"go.mod": "module example.test\n\ngo 1.24\n",
	"value/value.go": `package value

func Max(a, b int) int {
	if a > b {
		return a
	}
	return b
}

func IsSmall(a int) bool { return a < 3 }

func Log(log interface{ Info() }) { log.Info() }
`,
	"value/value_test.go": `package value

import "testing"

func TestMax(t *testing.T) {
	if Max(1, 2) != 2 {
		t.Error("not the larger value")
	}
}
`,
	"user/user_test.go": `package user

import (
	"testing"

	"example.test/value"
)

func TestSmall(t *testing.T) {
	if value.IsSmall(3) {
		t.Error("3 is small")
	}
}
`,
	"user/user.go": "package user\n",
}

// A test of the package notices the first mutant and a test of an importer the second. Nobody notices the third, which returns
// the same values. A lost log line is no mutant.
func TestMutants(t *testing.T) {
	dir := t.TempDir()
	for name, text := range example {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	if err := run(&out, options{dir: dir, packages: []string{"./..."}, count: 10, seed: 1, limit: time.Minute}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"value.go:4  a > b  =>  !(a > b)  TestMax\n",
		"value.go:10  <  =>  <=  ./user TestSmall\n",
		"value.go:4  >  =>  >=  SURVIVES\n",
		"noticed by tests of the package: 1, of its importers: 1, survivors: 1\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no row %q", want)
		}
	}
	if t.Failed() {
		t.Log("\n" + out.String())
	}
}
