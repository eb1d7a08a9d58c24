package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// rigVariable tells a process that it is the rig, and where its files are.
const rigVariable = "MNP_TENANTS_DIR"

// rigPatience is how long the rig may take to end after a signal.
const rigPatience = 20 * time.Second

// supervise builds the agent, runs the rig as a process of its own, and removes everything that the rig leaves: it
// survives a rig that panics or is killed. It returns the exit code of the rig.
// The rig inherits the command line and the standard output.
func supervise(ctx context.Context, o options) (code int, err error) {
	if os.Getuid() != 0 {
		return 1, errors.New("the attacks need root: they make network namespaces and cgroups")
	}
	// Runs whose supervisor was killed have left cgroups with processes, which would slow down this run.
	if err := sweep(); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", dirPrefix, os.Getpid()))
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := prepare(ctx, dir, o.agent); err != nil {
		return 1, err
	}
	groups, err := newGroups(filepath.Base(dir))
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, groups.remove()) }()
	// The rig is this program again, in namespaces of its own.
	rig := exec.Command("/proc/self/exe", os.Args[1:]...)
	rig.Env = append(os.Environ(), rigVariable+"="+dir)
	rig.Stdin, rig.Stdout, rig.Stderr = nil, os.Stdout, os.Stderr
	rig.SysProcAttr = &unix.SysProcAttr{
		// Its network namespace has no interface but loopback, so no packet of an attack leaves the machine.
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		Pdeathsig:  unix.SIGKILL,
		Setpgid:    true, // a signal from the terminal reaches the supervisor alone
	}
	// The rig dies with the thread that starts it, and this goroutine keeps its thread until the rig has ended.
	defer lockThread()()
	if err := rig.Start(); err != nil {
		return 1, fmt.Errorf("start the rig: %w", err)
	}
	// It waits for the rig or for a signal, whichever comes first.
	ended := make(chan error, 1)
	go func() { ended <- rig.Wait() }()
	// A signal ends the rig first, so that it can print the rows that it has.
	select {
	case err = <-ended:
	case <-ctx.Done():
		rig.Process.Signal(unix.SIGTERM) //nolint:errcheck // it may have ended
		select {
		case err = <-ended:
		case <-time.After(rigPatience):
			rig.Process.Kill() //nolint:errcheck // it may have ended
			err = <-ended
		}
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), nil
	}
	return 1, fmt.Errorf("the rig: %w", err)
}

// dirPrefix starts the name of a run's directory and cgroup. The process ID of the supervisor follows.
const dirPrefix = "mnp-tenants-"

// sweep removes the directories and cgroups of runs whose supervisor was killed.
// A process ID in the name tells whether the supervisor still lives. Other directories are left alone.
func sweep() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		text, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")
		pid, err := strconv.Atoi(text)
		if err != nil || unix.Kill(pid, 0) == nil {
			continue // not of this program, or the supervisor lives
		}
		g, err := openGroups(filepath.Base(dir))
		if err != nil {
			return err
		}
		if err := errors.Join(g.remove(), os.RemoveAll(dir)); err != nil {
			return err
		}
	}
	return nil
}

// prepare puts the agent's binary and the files of the repository that the rig reads into the directory.
// agent is the path of a binary to copy; empty: the agent is built as the image builds it, without cgo.
func prepare(ctx context.Context, dir, agent string) error {
	root, err := output(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	published, err := output(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/k8snetworkplumbingwg/multi-networkpolicy")
	if err != nil {
		return err
	}
	for name, from := range map[string]string{
		"published-crd.yaml": published + "/scheme.yml",
		"shipped-crd.yaml":   root + "/manifests/base/crd.yaml",
		"nad-crd.yaml":       root + "/hack/cluster/nad-crd.yaml",
		"rbac.yaml":          root + "/manifests/base/rbac.yaml",
		"daemonset.yaml":     root + "/manifests/base/daemonset.yaml",
		protection:           root + "/manifests/components/protect-network-status/policy.yaml",
	} {
		if err := copyFile(filepath.Join(dir, name), from, 0o644); err != nil {
			return err
		}
	}
	if agent != "" {
		return copyFile(filepath.Join(dir, "agent"), agent, 0o755)
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, "agent"), ".")
	build.Dir, build.Stderr = root, os.Stderr
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the agent: %w", err)
	}
	return nil
}

// copyFile copies a file by a new name, with the mode.
func copyFile(to, from string, mode os.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, mode)
}
