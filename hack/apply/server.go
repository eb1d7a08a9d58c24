package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"k8s.io/client-go/kubernetes"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/apiserver"
)

// token is the token of the administrator.
const token = "admin"

// server is an API server with etcd, as processes that end with this one.
type server struct {
	apiserver.Server
	processes []*exec.Cmd
}

// startServer starts the processes and waits until the API server is ready. With an error, the server must be stopped too, unless
// it is nil.
func startServer(ctx context.Context) (*server, error) {
	binary, err := apiserver.Binary()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "mnp-apply")
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	s := &server{Server: apiserver.Server{
		Dir: dir, EtcdPort: ports[0], EtcdPeerPort: ports[1], Port: ports[2], Issuer: "https://apply", Tokens: token + ",admin,admin,system:masters\n",
	}}
	if err := s.WriteFiles(); err != nil {
		return s, err
	}
	for _, args := range [][]string{s.Etcd(), s.APIServer("--authorization-mode=RBAC")} {
		if err := s.start(binary, args); err != nil {
			return s, err
		}
	}
	client, err := kubernetes.NewForConfig(s.Config(token))
	if err != nil {
		return s, err
	}
	return s, eventually(ctx, "the API server is ready", func() error {
		_, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		if err != nil {
			err = fmt.Errorf("%w; its log is %s", err, s.Path("kube-apiserver.log"))
		}
		return err
	})
}

// start starts a program of the binary. args[0] is the name of the program.
func (s *server) start(binary string, args []string) error {
	program := s.Path(args[0])
	if err := os.Symlink(binary, program); err != nil {
		return err
	}
	log, err := os.Create(program + ".log")
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the process has its own descriptor
	cmd := exec.Command(program, args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.Dir, log, log
	// A killed check leaves no process behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(program), err)
	}
	s.processes = append(s.processes, cmd)
	return nil
}

// stop ends the processes and removes their files.
func (s *server) stop() error {
	for _, cmd := range slices.Backward(s.processes) {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		cmd.Wait()         //nolint:errcheck // it was killed
	}
	return os.RemoveAll(s.Dir)
}

// freePorts returns ports of 127.0.0.1 that nobody uses now.
func freePorts(n int) (ports []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		// Open until all ports are chosen, so that they differ.
		defer func() { err = errors.Join(err, l.Close()) }()
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}
