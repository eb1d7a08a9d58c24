package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// writeManPages writes an archive with the man pages of all commands. Their date is the date of the release.
func (r *release) writeManPages(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "release-man-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	epoch := fmt.Sprintf("SOURCE_DATE_EPOCH=%d", r.date.Unix())
	if _, err := r.command(ctx, []string{epoch, "GOFLAGS=-mod=readonly", "GOPROXY=off"}, "go", "run", "./hack/man", dir); err != nil {
		return err
	}
	return r.archive("man.tar.gz", dir)
}

// completionFiles are the names that shells look for, by shell.
var completionFiles = map[string]string{"bash": program, "zsh": "_" + program, "fish": program + ".fish"}

// writeCompletions writes an archive with the completions of the shells, which the program itself prints.
func (r *release) writeCompletions(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "release-completions-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	for shell, name := range completionFiles {
		script, err := r.command(ctx, nil, r.file(binaryName(runtime.GOARCH)), "completion", shell)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(dir, shell), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, shell, name), []byte(script), 0o644); err != nil {
			return err
		}
	}
	return r.archive("completions.tar.gz", dir)
}

// writeChanges writes the changes of this version in words, from CHANGELOG.md, and the commits since the version before.
func (r *release) writeChanges(ctx context.Context) error {
	changelog, err := os.ReadFile(filepath.Join(r.root, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	text := fmt.Sprintf("# %s %s\n\n%s\n", program, r.version, section(string(changelog), r.version))
	// The tag of this version may be there already. Without an earlier tag, the list would be the whole history.
	before, err := r.git(ctx, "describe", "--tags", "--abbrev=0", "--match", "v*", "--exclude", r.version)
	if err == nil {
		commits, err := r.git(ctx, "log", "--no-merges", "--format=- %s (%h)", "--abbrev=12", before+"..HEAD")
		if err != nil {
			return err
		}
		text += fmt.Sprintf("\n## Commits since %s\n\n%s\n", before, commits)
	}
	return os.WriteFile(r.file("CHANGES.md"), []byte(text), 0o644)
}

// section returns the section of a changelog about a version. A version that has no section has the changes under "Unreleased". The
// heading is left out.
func section(changelog, version string) string {
	for _, title := range []string{strings.TrimPrefix(version, "v"), "Unreleased"} {
		heading := regexp.MustCompile(`(?m)^## \[?v?` + regexp.QuoteMeta(title) + `\b(\]|$| ).*$`)
		if at := heading.FindStringIndex(changelog); at != nil {
			text, _, _ := strings.Cut(changelog[at[1]:], "\n## ")
			return strings.TrimSpace(text)
		}
	}
	return ""
}
