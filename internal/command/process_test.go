package command

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// process is an agent in a separate process, as on a node.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	exited chan struct{}

	mu  sync.Mutex
	log bytes.Buffer
}

// Write receives the log of the agent.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *process) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// startProcess starts an agent on the node, with more arguments.
func startProcess(t *testing.T, n *node.Node, args ...string) *process {
	t.Helper()
	return startProcessTo(t, n, nil, args...)
}

// startProcessTo starts an agent that logs to a file.
func startProcessTo(t *testing.T, n *node.Node, log *os.File, args ...string) *process {
	t.Helper()
	p := &process{t: t, exited: make(chan struct{})}
	p.cmd = exec.Command("/proc/self/exe", append([]string{
		"--hostname-override=Here", "--kubeconfig=" + n.Kubeconfig, "--container-runtime-endpoint=" + n.RuntimeSocket,
		"--metrics-bind-address=", "--health-bind-address=", "--nri-socket=none",
	}, args...)...)
	p.cmd.Env = append(os.Environ(), agentVar+"=1")
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if log != nil {
		p.cmd.Stdout, p.cmd.Stderr = log, log
	}
	// The agent ends even if the test is killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait() //nolint:errcheck // ProcessState has the result
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.exited
	})
	return p
}

// says waits until the agent logs a text.
func (p *process) says(text string) {
	p.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(p.logged(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("the agent never said %q:\n%s", text, p.logged())
		}
	}
}

// end sends a signal, and checks that the agent ends as expected for the signal.
func (p *process) end(s syscall.Signal) {
	p.t.Helper()
	select {
	case <-p.exited:
		p.t.Fatalf("the agent ended by itself: %s\n%s", p.cmd.ProcessState, p.logged())
	default:
	}
	if s == syscall.SIGUSR1 {
		p.says("Starting") // by then the agent handles the signal
	}
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
	select {
	case <-p.exited:
	case <-time.After(10 * time.Second):
		p.t.Fatalf("%s does not end the agent:\n%s", s, p.logged())
	}
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch ok := map[syscall.Signal]bool{
		syscall.SIGKILL: status.Signaled(),
		syscall.SIGTERM: status.Exited() && status.ExitStatus() == 0,
		syscall.SIGUSR1: status.ExitStatus() == 2 && strings.Contains(p.logged(), "panic: "),
	}[s]; {
	case status.Signaled() && status.Signal() == s && len(p.logged()) == 0: // it ended before it handled signals
	case !ok:
		p.t.Errorf("by %s: %s\n%s", s, p.cmd.ProcessState, p.logged())
	}
}
