package apiserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
)

// Process is a running API server with its etcd, without scheduler and kubelet.
type Process struct {
	Server
	processes []*exec.Cmd // etcd and the API server, in the order of their start
}

// Token authenticates the clients of a Process.
const Token = "measurement"

// Start starts etcd and the API server with their files in dir, and returns when the API server is ready. The flags are for the API
// server. Both processes run only when no other process wants the core. The caller must stop them.
func Start(ctx context.Context, dir string, flags ...string) (s *Process, err error) {
	binary, err := Binary()
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	server := &Process{Server: Server{
		Dir: dir, EtcdPort: ports[0], EtcdPeerPort: ports[1], Port: ports[2], Issuer: "https://measurement",
		Tokens: Token + ",measurement,measurement,system:masters\n",
	}}
	defer func() {
		if err != nil {
			err = errors.Join(err, server.Stop())
		}
	}()
	if err := server.WriteFiles(); err != nil {
		return nil, err
	}
	for _, command := range [][]string{server.Etcd(), server.APIServer(flags...)} {
		if err := server.start(binary, command); err != nil {
			return nil, err
		}
	}
	return server, server.wait(ctx)
}

// start starts the program with a command line. Its output goes into a log file.
func (s *Process) start(binary string, command []string) error {
	name := command[0]
	log, err := os.Create(s.Path(name + ".log"))
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own descriptor
	c := exec.Command(binary)
	c.Args = command
	c.Stdout, c.Stderr = log, log
	// The process ends with this program, even if this program is killed.
	c.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := startIdle(c); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s.processes = append(s.processes, c)
	return nil
}

// startIdle starts a program that runs only when no other process wants the core. In a cluster the API server and etcd run on
// other machines and take no CPU time from the agent.
func startIdle(c *exec.Cmd) error {
	runtime.LockOSThread() // the program inherits the scheduling policy of the thread
	defer runtime.UnlockOSThread()
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0); err != nil {
		return fmt.Errorf("SCHED_IDLE: %w", err)
	}
	err := c.Start()
	back := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}, 0)
	return errors.Join(err, back)
}

// wait returns when the API server reports that it is ready, or after a minute with the last error.
func (s *Process) wait(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(s.Config(Token))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return await.NoError(ctx, "the API server is ready", func() error {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// CPU returns the CPU time of both processes since their start.
func (s *Process) CPU() (total time.Duration, err error) {
	for _, p := range s.processes {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
		if err != nil {
			return 0, err
		}
		// The name of the program, in parentheses, may have blanks. utime and stime are the fields 14 and 15 of the line, in ticks of 10 ms.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		for _, field := range fields[11:13] {
			ticks, err := strconv.Atoi(field)
			if err != nil {
				return 0, err
			}
			total += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return total, nil
}

// Stop ends the processes in reverse order.
// Nothing is kept, so the processes are killed.
func (s *Process) Stop() error {
	var errs []error
	for i := len(s.processes) - 1; i >= 0; i-- {
		p := s.processes[i]
		errs = append(errs, p.Process.Kill())
		var killed *exec.ExitError
		if err := p.Wait(); err != nil && !errors.As(err, &killed) {
			errs = append(errs, err)
		}
	}
	s.processes = nil
	return errors.Join(errs...)
}

// freePorts returns free TCP ports of 127.0.0.1. It holds each port until all are found, so that they differ.
// Another program can take a port between the return and its use; the start then fails with an error.
func freePorts(n int) (ports []string, err error) {
	for range n {
		l, e := net.Listen("tcp", "127.0.0.1:0")
		if e != nil {
			return nil, errors.Join(err, e)
		}
		defer func() { err = errors.Join(err, l.Close()) }()
		_, port, e := net.SplitHostPort(l.Addr().String())
		if e != nil {
			return nil, e
		}
		ports = append(ports, port)
	}
	return ports, nil
}
