package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// result is the result of the tests of a package on a kernel. Tests at the top level count, and skipped subtests.
type result struct {
	pkg    string
	status int // exit status of the test binary
	took   time.Duration
	passed int
	failed []outcome
	skips  []outcome
}

// outcome is a failed or skipped test with its output.
type outcome struct{ test, output string }

// ok reports whether the suite passed. A suite that crashes has an exit status without a failed test.
func (r result) ok() bool { return r.status == 0 && len(r.failed) == 0 }

// mark is the first byte of the lines that init.sh writes between the outputs of the suites.
const mark = 1

// listener reads the second serial port of a virtual machine: QEMU writes the output of the port to it. It is for a
// single goroutine. Lines of init.sh, which begin with mark, frame the output of each suite:
//
//	\x01kernel 6.1.0-…
//	\x01start engine
//	(output of engine.test)
//	\x01end engine 0
type listener struct {
	ctx     context.Context // for go tool test2json
	kernel  string          // version, for messages
	logs    string          // directory for the output of each suite
	line    []byte          // the line that has begun, without its end
	output  bytes.Buffer    // of the current suite
	log     *os.File        // log file of the current suite; nil before the first suite
	start   time.Time       // of the current suite
	results []result
}

// Write implements io.Writer. It takes the whole lines and keeps the rest for the next call.
func (l *listener) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		l.line = append(l.line, line...)
		rest = after
		if !ended {
			break
		}
		if err := l.take(string(l.line)); err != nil {
			return 0, err
		}
		l.line = l.line[:0]
	}
	return len(b), nil
}

// take handles one line.
func (l *listener) take(line string) error {
	var pkg string
	var status int
	switch {
	case len(line) == 0 || line[0] != mark:
		return l.keep(line)
	case scans(line[1:], "start %s", &pkg):
		return l.begin(pkg)
	case scans(line[1:], "end %s %d", &pkg, &status):
		return l.end(pkg, status)
	}
	fmt.Printf("%s: %s\n", l.kernel, line[1:])
	return nil
}

// scans reports whether a line has the format, and reads its values.
func scans(line, format string, values ...any) bool {
	_, err := fmt.Sscanf(line, format, values...)
	return err == nil
}

// keep adds a line to the output of the current suite.
func (l *listener) keep(line string) error {
	l.output.WriteString(line)
	l.output.WriteByte('\n')
	if l.log == nil {
		return nil
	}
	_, err := fmt.Fprintln(l.log, strings.ReplaceAll(line, string(rune(testMark)), ""))
	return err
}

// begin starts the output of a suite.
func (l *listener) begin(pkg string) (err error) {
	l.output.Reset()
	l.start = time.Now()
	l.log, err = os.Create(filepath.Join(l.logs, strings.ReplaceAll(pkg, "/", "-")+".log"))
	return err
}

// end evaluates the output of a suite, prints the outcome, and keeps the result.
func (l *listener) end(pkg string, status int) error {
	r := result{pkg: pkg, status: status, took: time.Since(l.start)}
	if err := l.log.Close(); err != nil {
		return err
	}
	if err := r.evaluate(l.ctx, &l.output); err != nil {
		return err
	}
	l.results = append(l.results, r)
	fmt.Printf("%s: %s %s\n", l.kernel, pkg, r)
	for _, f := range r.failed {
		fmt.Print(shortened(f.output))
	}
	if !r.ok() {
		fmt.Printf("exit status %d, log: %s\n", status, l.log.Name())
	}
	return nil
}

// shortened cuts the middle out of long output: the goroutines of a test that timed out, for example.
func shortened(output string) string {
	const head, tail = 6000, 2000
	if len(output) <= head+tail {
		return output
	}
	return output[:head] + "\n[...]\n" + output[len(output)-tail:]
}

// testMark is the byte before the lines of the testing package in the form that go tool test2json reads.
const testMark = 22

// evaluate counts the tests in the output of a test binary. A test without an end has failed: the binary ended before it.
func (r *result) evaluate(ctx context.Context, output io.Reader) error {
	c := exec.CommandContext(ctx, "go", "tool", "test2json")
	c.Stdin, c.Stderr = output, os.Stderr
	events, err := c.Output()
	if err != nil {
		return fmt.Errorf("go tool test2json: %w", err)
	}
	outputs := map[string]string{} // output of the tests that have not ended
	for decoder := json.NewDecoder(bytes.NewReader(events)); ; {
		var e struct{ Action, Test, Output string }
		if err := decoder.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		top, _, isSub := strings.Cut(e.Test, "/")
		outputs[e.Test] += e.Output
		// The output of a subtest also explains the failure of its test.
		if isSub {
			outputs[top] += e.Output
		}
		if r.count(e.Action, isSub, outcome{e.Test, outputs[e.Test]}) {
			delete(outputs, e.Test)
		}
	}
	for test, output := range outputs {
		if test != "" && !strings.Contains(test, "/") {
			r.failed = append(r.failed, outcome{test, output})
		}
	}
	return nil
}

// count counts a test if the action ends the test, and reports whether it does. Subtests count only when they are
// skipped: their test fails with them.
func (r *result) count(action string, isSub bool, o outcome) (ended bool) {
	switch {
	case o.test == "":
		return false
	case action == "skip":
		r.skips = append(r.skips, o)
	case action == "pass" && !isSub:
		r.passed++
	case action == "fail" && !isSub:
		r.failed = append(r.failed, o)
	}
	return action == "skip" || action == "pass" || action == "fail"
}

// missing returns an error that names the suites without a result.
func (l *listener) missing(suites []suite) error {
	var names []string
	for _, s := range suites[min(len(l.results), len(suites)):] {
		names = append(names, s.pkg)
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("no report from %s; the last output was\n%s%s", strings.Join(names, ", "), shortened(l.output.String()), l.line)
}
