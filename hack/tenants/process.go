package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// output runs a program and returns its output without the space around it.
// An error has the program's standard error.
func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// lockThread wires the goroutine to its thread until unlock is called.
func lockThread() (unlock func()) {
	runtime.LockOSThread()
	return runtime.UnlockOSThread
}

// launcher starts processes that die with this process. The kernel ends them with the thread that started them, so a
// single thread starts all of them and lives as long as this process.
type launcher struct{ requests chan func() }

// newLauncher starts the thread. It is never stopped.
func newLauncher() *launcher {
	l := &launcher{make(chan func())}
	go func() {
		runtime.LockOSThread()
		for f := range l.requests {
			f()
		}
	}()
	return l
}

// process is a program in a memory cgroup, with its output in a file.
// err may be read with the lock once ended is closed.
type process struct {
	name string
	log  string // file
	cmd  *exec.Cmd

	mu    sync.Mutex
	err   error // of Wait
	ended chan struct{}
}

// command describes a program to start.
// args starts with the path of the program; name is for its log and for messages.
type command struct {
	name  string
	group *group
	nice  int // lower priority than the agent's
	env   []string
	args  []string
}

// start starts the program. The log is appended to. A shell puts itself into the cgroup before it becomes the program,
// so that the cgroup is charged for everything that the program uses.
func (l *launcher) start(dir string, c command) (*process, error) {
	p := &process{name: c.name, log: filepath.Join(dir, c.name+".log"), ended: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the process has its own descriptor
	// $0 is the file of the cgroup; the other arguments are the priority and the program with its arguments.
	script := `echo $$ > "$0" && exec nice -n "$@"`
	p.cmd = exec.Command("sh", append([]string{"-c", script, c.group.procs(), fmt.Sprint(c.nice)}, c.args...)...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = append(os.Environ(), c.env...)
	// Its own process group keeps signals of the terminal away from it.
	p.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	started := make(chan error)
	l.requests <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	go func() {
		err := p.cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(p.ended)
	}()
	return p, nil
}

// hasEnded reports whether the process has ended.
func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// why says how the process ended.
func (p *process) why() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		return "exit status 0"
	}
	return p.err.Error()
}

// kill ends the process and waits for its end.
func (p *process) kill() {
	if p == nil {
		return
	}
	p.cmd.Process.Kill() //nolint:errcheck // it may have ended
	<-p.ended
}

// eventually retries until try succeeds. After the patience it returns the last error of try.
// It tries at least once, and again every 10 ms. what names the condition in the error.
func eventually(ctx context.Context, patience time.Duration, what string, try func() error) error {
	for end := time.Now().Add(patience); ; {
		err := try()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: not within %s: %w", what, patience, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}
