package command

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var updateConsole = flag.Bool("update", false, "write what the commands of testdata/console and of the docs print into them")

// TestConsole runs the commands of transcripts, which are the lines with "$ ", and compares their output.
func TestConsole(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Setenv("KUBECONFIG", "/nonexistent")
	files, err := filepath.Glob("testdata/console/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text := readText(t, file)
			got := replay(t, text)
			if *updateConsole {
				writeText(t, file, got)
			} else if diff := cmp.Diff(strings.Split(text, "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestDocumentedCommands runs the commands in the console blocks of the pages, as far as they need no cluster.
func TestDocumentedCommands(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Setenv("KUBECONFIG", "/nonexistent")
	for page, atLeast := range map[string]int{"troubleshooting.md": 5, "nftables.md": 2, "virtual-machines.md": 1, "interfaces.md": 1} {
		t.Run(page, func(t *testing.T) { replayPage(t, "../../docs/"+page, atLeast) })
	}
}

func replayPage(t *testing.T, page string, atLeast int) {
	t.Helper()
	const open, end = "```console\n", "```\n"
	text := readText(t, page)
	var got strings.Builder
	commands := 0
	for rest := text; ; {
		before, block, found := strings.Cut(rest, open)
		got.WriteString(before)
		if !found {
			break
		}
		block, rest, found = strings.Cut(block, end)
		if !found {
			t.Fatal("a block that does not end")
		}
		commands += strings.Count(block, "$ "+program)
		got.WriteString(open + replay(t, block) + end)
	}
	if commands < atLeast {
		t.Errorf("only %d commands", commands)
	}
	if *updateConsole {
		writeText(t, page, got.String())
	} else if diff := cmp.Diff(strings.Split(text, "\n"), strings.Split(got.String(), "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestTroubleshootingLog checks that the program can write the lines of the log that docs/troubleshooting.md explains.
func TestTroubleshootingLog(t *testing.T) {
	var source strings.Builder
	for _, pattern := range []string{
		"*.go", "../agent/*.go", "../outage/*.go", "../reconciler/*.go", "../../engine/*.go", "../../informers/*.go", "../../informers/sandbox/*.go",
	} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if !strings.HasSuffix(f, "_test.go") {
				source.WriteString(readText(t, f))
			}
		}
	}
	lines := 0
	for line := range strings.Lines(readText(t, "../../docs/troubleshooting.md")) {
		message, isRow := strings.CutPrefix(line, "| `\"")
		if !isRow {
			continue
		}
		message, _, _ = strings.Cut(message, "\"`")
		lines++
		if !strings.Contains(source.String(), `"`+message) {
			t.Errorf("nothing logs %q", message)
		}
	}
	if lines < 5 {
		t.Errorf("only %d lines", lines)
	}
}

// replay runs the commands of a transcript in the root of the repository, and returns the transcript with their output. It does
// not run other programs, and keeps their output.
func replay(t *testing.T, transcript string) string {
	t.Helper()
	t.Chdir("../..")
	defer t.Chdir("internal/command")
	var out bytes.Buffer
	ours := false
	for line := range strings.Lines(transcript) {
		command, isCommand := strings.CutPrefix(line, "$ ")
		if isCommand {
			words := strings.Fields(command)
			out.WriteString(line)
			if ours = words[0] == program; ours {
				if code := Main("v1", words[1:], &out, &out); code != 0 {
					fmt.Fprintf(&out, "exit code %d\n", code)
				}
			}
		} else if !ours {
			out.WriteString(line)
		}
	}
	return out.String()
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func writeText(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
