package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// apiServer is a real API server with etcd, each a process, without scheduler and kubelet.
type apiServer struct {
	dir       string // files of both processes
	config    *rest.Config
	processes []*exec.Cmd
}

// token authenticates clients.
const token = "bench"

// kubernetesBinary returns the path of the program that hack/cluster/bootstrap.sh built last: all of Kubernetes.
func kubernetesBinary() (string, error) {
	dir := os.Getenv("K8S_CACHE")
	if dir == "" {
		dir = "/var/cache/mnp-k8s"
	}
	found, err := filepath.Glob(filepath.Join(dir, "k8s-*"))
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("no Kubernetes in %s: run hack/cluster/bootstrap.sh, which builds it", dir)
	}
	if err != nil {
		return "", err
	}
	latest := found[0]
	for _, f := range found[1:] {
		if newer(f, latest) {
			latest = f
		}
	}
	return latest, nil
}

func newer(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && x.ModTime().After(y.ModTime())
}

func startAPIServer(dir string) (s *apiServer, err error) {
	binary, err := kubernetesBinary()
	if err != nil {
		return nil, err
	}
	s = &apiServer{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	clients, peers := "http://127.0.0.1:"+ports[0], "http://127.0.0.1:"+ports[1]
	if err := s.writeFiles(); err != nil {
		return nil, err
	}
	err = s.start(binary, "etcd", "--data-dir="+s.path("etcd"), "--unsafe-no-fsync", "--log-level=error",
		"--listen-client-urls="+clients, "--advertise-client-urls="+clients, "--listen-peer-urls="+peers,
		"--initial-advertise-peer-urls="+peers, "--initial-cluster=default="+peers)
	if err != nil {
		return nil, err
	}
	err = s.start(binary, "kube-apiserver", "--etcd-servers="+clients, "--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1", "--secure-port="+ports[2], "--endpoint-reconciler-type=none", "--cert-dir="+s.path("certs"),
		"--token-auth-file="+s.path("tokens"), "--authorization-mode=AlwaysAllow", "--disable-admission-plugins=ServiceAccount",
		"--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://bench",
		"--service-account-key-file="+s.path("key.pem"), "--service-account-signing-key-file="+s.path("key.pem"))
	if err != nil {
		return nil, err
	}
	s.config = &rest.Config{
		Host: "https://127.0.0.1:" + ports[2], BearerToken: token, TLSClientConfig: rest.TLSClientConfig{Insecure: true},
		QPS: -1, // no limit in the client
	}
	return s, s.wait()
}

func (s *apiServer) path(name string) string { return filepath.Join(s.dir, name) }

func (s *apiServer) writeFiles() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	return errors.Join(
		os.WriteFile(s.path("key.pem"), text, 0o600),
		os.WriteFile(s.path("tokens"), []byte(token+",bench,bench,system:masters\n"), 0o600),
	)
}

// start starts the program under the given name. Its output goes into a log file.
func (s *apiServer) start(binary, name string, args ...string) error {
	log, err := os.Create(s.path(name + ".log"))
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own descriptor
	c := exec.Command(binary, args...)
	c.Args[0] = name
	c.Stdout, c.Stderr = log, log
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

func (s *apiServer) wait() error {
	client, err := kubernetes.NewForConfig(s.config)
	if err != nil {
		return err
	}
	return eventually(time.Minute, "the API server is ready", func() error {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(context.Background()).Error()
	})
}

// eventually retries until try succeeds or the time is over. what names the condition in the error.
func eventually(most time.Duration, what string, try func() error) error {
	for end := time.Now().Add(most); ; time.Sleep(20 * time.Millisecond) {
		err := try()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("not after %s: %s: %w", most, what, err)
		}
	}
}

// writeKubeconfig writes a kubeconfig for the agent, with the URL of the tap.
func (s *apiServer) writeKubeconfig(by string) (string, error) {
	c := clientcmdapi.NewConfig()
	c.Clusters["bench"] = &clientcmdapi.Cluster{Server: by}
	c.AuthInfos["bench"] = &clientcmdapi.AuthInfo{}
	c.Contexts["bench"] = &clientcmdapi.Context{Cluster: "bench", AuthInfo: "bench"}
	c.CurrentContext = "bench"
	return s.path("kubeconfig"), clientcmd.WriteToFile(*c, s.path("kubeconfig"))
}

// stop ends the processes in reverse order.
func (s *apiServer) stop() error {
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
