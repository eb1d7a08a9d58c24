package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

//go:embed init.sh
var initScript []byte

// Tests start nft and sleep, which is an applet of busybox. They read the names of protocols and services.
var programs = []string{"nft", "busybox"}
var systemFiles = []string{"/etc/protocols", "/etc/services"}

// writeImage writes the initramfs of a virtual machine that runs the suites.
func writeImage(ctx context.Context, path string, k kernel, suites []suite, flags testFlags) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 1<<20)
	a := newArchive(w)
	// The kernel starts /init as its first process.
	a.file("init", 0o755, initScript)
	a.file("tests.sh", 0o644, []byte(script(suites, flags)))
	a.symlink("sbin", "bin") // the kernel starts /sbin/modprobe to load a module
	for _, name := range []string{"proc", "sys", "dev", "tmp", "run", "root"} {
		a.dir(name)
	}
	return errors.Join(
		addPrograms(ctx, a),
		addTree(a, k.modules),
		addRepository(ctx, a),
		addSuites(a, suites),
		a.close(),
		w.Flush(),
	)
}

// script returns tests.sh, which calls the function run of init.sh for each suite. For example:
//
//	'run' 'engine' '-test.v=test2json' '-test.timeout=20m0s' '-test.run=' '-test.skip='
func script(suites []suite, flags testFlags) string {
	var b strings.Builder
	for _, s := range suites {
		args := []string{"run", s.pkg, "-test.v=test2json", "-test.timeout=" + flags.timeout.String(), "-test.run=" + flags.run,
			"-test.skip=" + flags.skip}
		args = append(args, strings.Fields(flags.args)...)
		for _, arg := range args {
			// Quoted for the shell; a quote in an argument ends the quoted string, adds the quote, and begins a new
			// string.
			b.WriteString("'" + strings.ReplaceAll(arg, "'", `'\''`) + "' ")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// loaded matches a library, or the dynamic linker, in the output of ldd.
var loaded = regexp.MustCompile(`(/\S+) \(0x`)

// addPrograms adds the programs with their libraries, at the paths of this machine, and the system's files.
func addPrograms(ctx context.Context, a *archive) error {
	files := systemFiles
	for _, name := range programs {
		path, err := exec.LookPath(name)
		if err != nil {
			return err
		}
		if err := a.copy("bin/"+name, path); err != nil {
			return err
		}
		// ldd fails for a static program, which needs no libraries.
		out, _ := exec.CommandContext(ctx, "ldd", path).Output() //nolint:errcheck // as the line above says
		for _, m := range loaded.FindAllStringSubmatch(string(out), -1) {
			files = append(files, m[1])
		}
	}
	for _, path := range files {
		if err := a.copy(strings.TrimPrefix(path, "/"), path); err != nil {
			return err
		}
	}
	return nil
}

// addTree adds the files below a directory.
func addTree(a *archive, root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return a.copy(name, path)
	})
}

// addRepository adds the work tree, without ignored files: tests read testdata, documents and sources.
func addRepository(ctx context.Context, a *archive) error {
	out, err := command(ctx, ".", "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return err
	}
	for _, name := range strings.Split(strings.TrimSuffix(out, "\x00"), "\x00") {
		// A link to a folder has no content, so links stay links.
		if target, err := os.Readlink(name); err == nil {
			a.symlink("src/"+name, target)
			continue
		}
		if err := a.copy("src/"+name, name); err != nil && !errors.Is(err, fs.ErrNotExist) { // deleted, but not committed
			return err
		}
	}
	return nil
}

// addSuites adds the test binaries, where init.sh looks for them.
func addSuites(a *archive, suites []suite) error {
	for _, s := range suites {
		if err := a.copy(fmt.Sprintf("tests/%s.test", s.pkg), s.binary); err != nil {
			return err
		}
	}
	return nil
}
