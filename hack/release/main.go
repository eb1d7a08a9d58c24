package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	out := flag.String("o", "", "folder for the release (bin/release/VERSION)")
	push := flag.String("push", "", "folder of a release whose image is pushed, instead of building a release")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *out, *push, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// run builds or pushes a release, from the flags and the arguments of the command.
func run(ctx context.Context, out, push string, args []string) error {
	if push != "" {
		pushed, err := pushImage(ctx, push)
		if err == nil {
			fmt.Println(pushed)
		}
		return err
	}
	if len(args) != 1 {
		return errors.New("want a single VERSION, such as v1.2.3")
	}
	if out == "" {
		out = filepath.Join("bin/release", args[0])
	}
	r, err := newRelease(ctx, ".", out, args[0])
	if err != nil {
		return err
	}
	if changed, err := r.git(ctx, "status", "--porcelain"); err == nil && changed != "" {
		fmt.Fprintln(os.Stderr, "release: the work tree has changes that no commit has")
	}
	return r.build(ctx)
}

// release is a release that is being built.
type release struct {
	root    string     // folder of the project
	out     string     // folder for the files of the release
	version string     // with the letter v: v1.2.3
	date    time.Time  // date of all files in images and archives
	plugin  []platform // platforms of the kubectl plugin
	// programs are the programs that were built, in order, for the SBOM.
	programs []builtProgram
}

// newRelease makes the folder of the release. The folder must be empty or missing: files of another release would get into
// the checksums.
func newRelease(ctx context.Context, root, out, version string) (*release, error) {
	if !isVersion(version) {
		return nil, fmt.Errorf("%q is no version, such as v1.2.3 or v1.2.3-rc.1", version)
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	if out, err = filepath.Abs(out); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, err
	}
	if files, err := os.ReadDir(out); err != nil || len(files) > 0 {
		return nil, errors.Join(err, fmt.Errorf("the folder %s is not empty", out))
	}
	r := &release{root: root, out: out, version: version, plugin: pluginPlatforms()}
	// https://reproducible-builds.org/specs/source-date-epoch
	epoch, ok := os.LookupEnv("SOURCE_DATE_EPOCH")
	if !ok {
		if epoch, err = r.git(ctx, "log", "-1", "--format=%ct"); err != nil {
			return nil, fmt.Errorf("date of the release, without SOURCE_DATE_EPOCH: %w", err)
		}
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("date of the release: %w", err)
	}
	r.date = time.Unix(seconds, 0).UTC()
	return r, nil
}

// build makes all files of the release. The checksums are the last, since they cover all other files.
func (r *release) build(ctx context.Context) error {
	digest, err := r.buildImage(ctx)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"install manifests", func() error { return r.writeManifests(digest) }},
		{"man pages", func() error { return r.writeManPages(ctx) }},
		{"shell completions", func() error { return r.writeCompletions(ctx) }},
		{"chart", r.writeChart},
		{"kubectl plugin", func() error { return r.writePlugin(ctx) }},
		{"SBOM", r.writeSBOM},
		{"changes", func() error { return r.writeChanges(ctx) }},
		{"checksums", r.writeChecksums},
	} {
		if err := step.run(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// file returns the path of a file of the release.
func (r *release) file(name string) string { return filepath.Join(r.out, name) }

// command runs a program in the folder of the project, with additional variables, and returns its standard output.
func (r *release) command(ctx context.Context, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = r.root
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return string(out), err
}

// git runs git and returns its output without the last line break.
func (r *release) git(ctx context.Context, args ...string) (string, error) {
	out, err := r.command(ctx, nil, append([]string{"git"}, args...)...)
	return strings.TrimRight(out, "\n"), err
}
