package main

import (
	"context"
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

const (
	// transcriptPage has the commands from install to uninstall, each with its output.
	transcriptPage = "docs/quick-start.md"
	// transcriptEnd is the last command. No table is left before it.
	transcriptEnd = "kubectl delete namespace quick-start"
	// settle is the time between a change and a look whose expected output is not known, when the page is written.
	settle = 3 * time.Second
)

// player plays the page.
type player struct{ *scenario }

// transcript runs the commands of the quick start in their order, as a user types them, on a cluster without the agent. It compares their
// output with the page, or writes the output into the page.
func (s player) transcript(ctx context.Context, update bool) error {
	if err := s.newHome(); err != nil {
		return err
	}
	file := filepath.Join(s.root, transcriptPage)
	page, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	parts := readTranscript(string(page))
	for i := range parts {
		p := &parts[i]
		if p.command == "" {
			continue
		}
		if p.command == transcriptEnd {
			s.check("transcript: no table is left", s.noTables(ctx))
		}
		if update {
			if err := s.updatePart(ctx, p); err != nil {
				return err
			}
			continue
		}
		s.check("transcript: "+p.command, s.comparePart(ctx, p))
	}
	s.note("transcript")
	if update {
		return os.WriteFile(file, []byte(writeTranscript(parts)), 0o600)
	}
	return nil
}

// part is a command of the page with its output, or text before and after commands.
type part struct {
	text    string // lines of the page: text, or the lines of the command
	command string // on a single line; empty: text only
	output  string
}

// changes matches commands that change the cluster, or take some time to look. They run once.
var changes = regexp.MustCompile(`\b(apply|delete|annotate|label|drops|sleep)\b`)

// comparePart runs the command of a part, and returns an error unless its output is that of the page. A command that only looks is
// repeated until its output is as expected.
func (s player) comparePart(ctx context.Context, p *part) error {
	try := func() error {
		got, err := s.terminal(ctx, p.command)
		if err != nil {
			return err
		}
		if normalized(p.command, got) != normalized(p.command, p.output) {
			return fmt.Errorf("%s has:\n%s\nthe command prints:\n%s", transcriptPage, p.output, got)
		}
		return nil
	}
	if changes.MatchString(p.command) {
		return try()
	}
	return s.eventually(ctx, try)
}

// updatePart runs the command of a part, and takes over its output if more than its variable parts has changed.
func (s player) updatePart(ctx context.Context, p *part) error {
	if !changes.MatchString(p.command) {
		time.Sleep(settle)
	}
	got, err := s.terminal(ctx, p.command)
	if err == nil && normalized(p.command, got) != normalized(p.command, p.output) {
		p.output = waiting.ReplaceAllString(got, "")
	}
	return err
}

// terminal runs a command in a shell, and returns everything that a terminal would show.
func (s player) terminal(ctx context.Context, command string) (string, error) {
	command = strings.ReplaceAll(command, "-f install.yaml", strings.Join(s.manifests(), " "))
	out, err := s.output(ctx, s.in("cp", "env", "HOME="+s.home(), "bash", "-c", "exec 2>&1\n"+command)...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = ctx.Err() // the output has the error
	}
	return string(out), err
}

// noTables returns an error if a pod of the quick start has a table.
func (s player) noTables(ctx context.Context) error {
	pods, err := s.testPods(ctx, "-n", "quick-start")
	if err == nil && len(pods) != 2 {
		err = fmt.Errorf("%d pods, want 2", len(pods))
	}
	if err != nil {
		return err
	}
	return s.tables(ctx, pods)
}

// waiting matches lines about the progress of a command.
var waiting = regexp.MustCompile(`(?m)^Waiting for .*\n`)

// variable are the parts of outputs that differ from run to run.
var variable = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{waiting, ""},
	{regexp.MustCompile(`\d\d:\d\d:\d\d\.\d{3}`), "TIME"},
	{regexp.MustCompile(`10\.77\.0\.3:\d+`), "10.77.0.3:PORT"},
	{regexp.MustCompile(`\bnode\d\b`), "NODE"},
	{regexp.MustCompile(`(?m)(\s)\d+m?\d*s(\s)`), "${1}AGE${2}"},
	{regexp.MustCompile(` {2,}`), "  "}, // the width of a column
}

// normalized returns the output without its variable parts. A line that follows an equal line is left out, since a client sends a packet
// again. The lines of two commands that run at the same time are sorted.
func normalized(command, output string) string {
	for _, v := range variable {
		output = v.pattern.ReplaceAllString(output, v.by)
	}
	lines := strings.Split(strings.TrimSpace(output), "\n")
	if strings.Contains(command, " & ") {
		slices.Sort(lines)
	}
	return strings.Join(slices.Compact(lines), "\n")
}

// readTranscript splits a page at the commands of its console blocks. A command is a line with "$ ", and the lines that
// a backslash joins with it.
func readTranscript(page string) (parts []part) {
	inBlock, joined := false, false
	for line := range strings.Lines(page) {
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case strings.HasPrefix(line, "```"):
			inBlock = line == "```console\n"
			parts = append(parts, part{text: line})
		case inBlock && (isCommand || joined):
			if isCommand {
				parts = append(parts, part{})
			}
			p := &parts[len(parts)-1]
			p.text += line
			if command, joined = strings.CutSuffix(strings.TrimSpace(command), "\\"); p.command != "" {
				p.command += " "
			}
			p.command += strings.TrimSpace(command)
		case inBlock:
			parts[len(parts)-1].output += line
		default:
			parts = append(parts, part{text: line})
		}
	}
	return parts
}

// writeTranscript is the inverse of readTranscript.
func writeTranscript(parts []part) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(p.text + p.output)
	}
	return b.String()
}
