package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// session is the output of a machine: a suite that passes with a skipped subtest, a suite with one failed and one skipped test, a suite that panics, a
// suite that is killed, and a suite that never ends.
const session = "\x01kernel 6.1.0\n" +
	"\x01start good\n\x16=== RUN   TestA\n\x16=== RUN   TestA/new\n    a_test.go:1: SKIPPED: too old\n\x16--- SKIP: TestA/new (0.00s)\n" +
	"\x16--- PASS: TestA (0.00s)\n\x16PASS\n\n\x01end good 0\n" +
	"\x01start bad\n\x16=== RUN   TestB\n\x16=== RUN   TestB/sub\n    b_test.go:1: broken\n\x16--- FAIL: TestB/sub (0.00s)\n" +
	"\x16--- FAIL: TestB (0.00s)\n\x16=== RUN   TestC\n    c_test.go:2: SKIPPED: no such kernel\n\x16--- SKIP: TestC (0.00s)\n\x16FAIL\n" +
	"\n\x01end bad 1\n" +
	"\x01start panics\n\x16=== RUN   TestP\n\x16=== RUN   TestP/sub\npanic: broken\n\n\x01end panics 2\n" +
	"\x01start silent\n\n\x01end silent 137\n" +
	"\x01start hangs\n\x16=== RUN   TestD\n"

func TestListener(t *testing.T) {
	l := &listener{ctx: t.Context(), kernel: "6.1", logs: t.TempDir()}
	for _, b := range []byte(session) {
		if _, err := l.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, r := range l.results {
		r.took = 0
		got = append(got, r.pkg+" "+r.String())
	}
	want := []string{"good ok, 1 passed, 1 skipped, 0s", "bad FAILED, 0 passed, 1 failed, 1 skipped, 0s", "panics FAILED, 0 passed, 1 failed, 0s", "silent FAILED, 0 passed, 0s"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	err := l.missing([]suite{{pkg: "good"}, {pkg: "bad"}, {pkg: "panics"}, {pkg: "silent"}, {pkg: "hangs"}, {pkg: "never"}})
	if err == nil || !strings.Contains(err.Error(), "no report from hangs, never") || !strings.Contains(err.Error(), "TestD") {
		t.Errorf("missing: %v", err)
	}

	var tab table
	tab.add("6.1", l.results, err)
	for _, line := range []string{
		"| package | 6.1 |", "| good | ok, 1 passed, 1 skipped, 0s |", "skipped on 6.1: bad TestC: SKIPPED: no such kernel",
		"skipped on 6.1: good TestA/new: SKIPPED: too old",
		"1 passed, 2 failed, 2 skipped",
	} {
		if !strings.Contains(tab.String(), line) {
			t.Errorf("no line %q in\n%s", line, tab.String())
		}
	}
	if !tab.failed() {
		t.Error("a run with failed and missing suites did not fail")
	}
}

// TestTablePasses: a run passes if each package passed on each kernel.
func TestTablePasses(t *testing.T) {
	var tab table
	if !tab.failed() {
		t.Error("a run of nothing passed")
	}
	good := result{pkg: "good", passed: 1}
	tab.add("5.10", []result{good}, nil)
	tab.add("6.1", []result{good}, nil)
	if tab.failed() {
		t.Error("failed")
	}
	tab.add("6.12", nil, nil)
	if !tab.failed() {
		t.Error("a package that did not report on one kernel passed")
	}
}
