package main

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// table is the result of a run: kernels × packages.
type table struct {
	kernels []string
	// The key of the outer map is the package, of the inner map the kernel. A missing result means that the machine
	// ended before.
	rows map[string]map[string]result
	errs []error
}

// add adds the results of a kernel. The error says why results are missing.
func (t *table) add(kernel string, results []result, err error) {
	t.kernels = append(t.kernels, kernel)
	if err != nil {
		fmt.Printf("%s: %v\n", kernel, err)
		t.errs = append(t.errs, err)
	}
	for _, r := range results {
		if t.rows == nil {
			t.rows = map[string]map[string]result{}
		}
		if t.rows[r.pkg] == nil {
			t.rows[r.pkg] = map[string]result{}
		}
		t.rows[r.pkg][kernel] = r
	}
}

// failed reports whether anything failed. A package without a result has failed, and so has a run without packages.
func (t *table) failed() bool {
	for _, row := range t.rows {
		for _, kernel := range t.kernels {
			if r, reported := row[kernel]; !reported || !r.ok() {
				return true
			}
		}
	}
	return len(t.errs) > 0 || len(t.rows) == 0
}

// String is the table in Markdown, with the skipped tests below it. Its last line counts all tests.
func (t *table) String() string {
	var w strings.Builder
	fmt.Fprintf(&w, "\n| package | %s |\n|%s\n", strings.Join(t.kernels, " | "), strings.Repeat(" --- |", len(t.kernels)+1))
	packages := make([]string, 0, len(t.rows))
	for pkg := range t.rows {
		packages = append(packages, pkg)
	}
	slices.Sort(packages)
	var passed, failed, skipped int
	for _, pkg := range packages {
		fmt.Fprintf(&w, "| %s |", pkg)
		for _, kernel := range t.kernels {
			r, reported := t.rows[pkg][kernel]
			passed, failed, skipped = passed+r.passed, failed+len(r.failed), skipped+len(r.skips)
			if !reported {
				fmt.Fprint(&w, " no report |")
				continue
			}
			fmt.Fprintf(&w, " %s |", r)
		}
		w.WriteByte('\n')
	}
	t.writeSkips(&w, packages)
	fmt.Fprintf(&w, "\n%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	return w.String()
}

// reason matches a line that a test logs. The last such line of a skipped test has the reason.
var reason = regexp.MustCompile(`(?m)^ +\S+\.go:\d+: (.*)$`)

// writeSkips writes the tests that did not run, with their reasons.
func (t *table) writeSkips(w *strings.Builder, packages []string) {
	for _, kernel := range t.kernels {
		for _, pkg := range packages {
			for _, s := range t.rows[pkg][kernel].skips {
				why := "no reason given"
				if m := reason.FindAllStringSubmatch(s.output, -1); m != nil {
					why = m[len(m)-1][1]
				}
				fmt.Fprintf(w, "skipped on %s: %s %s: %s\n", kernel, pkg, s.test, why)
			}
		}
	}
}

// String is a cell of the table, for example "ok, 41 passed, 2 skipped, 12s".
func (r result) String() string {
	return fmt.Sprintf("%s, %d passed%s, %s", cmp.Or(map[bool]string{true: "ok"}[r.ok()], "FAILED"), r.passed,
		r.others(), r.took.Round(time.Second))
}

// others returns the numbers of failed and skipped tests.
func (r result) others() string {
	var b strings.Builder
	for _, c := range []struct {
		n     int
		state string
	}{{len(r.failed), "failed"}, {len(r.skips), "skipped"}} {
		if c.n > 0 {
			fmt.Fprintf(&b, ", %d %s", c.n, c.state)
		}
	}
	return b.String()
}
