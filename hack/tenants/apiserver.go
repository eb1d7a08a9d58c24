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
	"os"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Ports on loopback of the rig's network namespace, where nothing else listens.
const (
	etcdPort       = "2379"
	etcdPeerPort   = "2380"
	serverPort     = "6443"
	controllerPort = "10257"
)

// Memory limits of the processes beside the agent. No attack is on them; the limits protect the machine.
const (
	etcdMemory       = 3 << 30
	serverMemory     = 5 << 30
	controllerMemory = 1 << 30
	rigMemory        = 8 << 30
)

// otherNice is the priority of the processes that have cores of their own in a cluster.
const otherNice = 10

// The users of the API server. Each has a token of the same name.
const (
	adminUser  = "admin"  // the cluster: kubelet, Multus, scheduler
	victimUser = "victim" // owns the namespace victim
	tenantUser = "evil"   // owns the namespaces of the attacker
	agentUser  = "agent"  // the service account in manifests/base/rbac.yaml
)

const agentAccount = "system:serviceaccount:multi-networkpolicy-system:multi-networkpolicy-nftables"

// tokens is the token file: token, user, UID, groups.
const tokens = adminUser + `,admin,admin,system:masters
` + victimUser + `,victim,victim,
` + tenantUser + `,evil,evil,
` + agentUser + "," + agentAccount + `,agent,"system:serviceaccounts,system:serviceaccounts:multi-networkpolicy-system"
`

// apiServer is etcd, kube-apiserver and the namespace controller.
type apiServer struct {
	dir       string
	processes []*process
}

// kubernetesBinary returns the newest binary that hack/cluster/bootstrap.sh built: a single program with all of Kubernetes.
func kubernetesBinary() (string, error) {
	dir := os.Getenv("K8S_CACHE")
	if dir == "" {
		dir = "/var/cache/mnp-k8s"
	}
	found, err := filepath.Glob(filepath.Join(dir, "k8s-*"))
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", fmt.Errorf("no Kubernetes in %s: run hack/cluster/bootstrap.sh, which builds it", dir)
	}
	return slices.MaxFunc(found, func(a, b string) int { return modified(a).Compare(modified(b)) }), nil
}

func modified(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// startAPIServer starts the processes and waits until the API server is ready.
func startAPIServer(ctx context.Context, l *launcher, g *groups, dir string) (*apiServer, error) {
	s := &apiServer{dir: dir}
	binary, err := kubernetesBinary()
	if err != nil {
		return s, err
	}
	if err := s.writeFiles(); err != nil {
		return s, err
	}
	etcd := "http://127.0.0.1:" + etcdPort
	peers := "http://127.0.0.1:" + etcdPeerPort
	for _, c := range []struct {
		memory int64
		args   []string
	}{
		{etcdMemory, []string{
			"etcd", "--data-dir=" + s.path("data"), "--unsafe-no-fsync", "--log-level=error", "--quota-backend-bytes=4294967296",
			"--listen-client-urls=" + etcd, "--advertise-client-urls=" + etcd, "--listen-peer-urls=" + peers,
			"--initial-advertise-peer-urls=" + peers, "--initial-cluster=default=" + peers,
		}},
		{serverMemory, []string{
			"kube-apiserver", "--etcd-servers=" + etcd, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
			"--secure-port=" + serverPort, "--endpoint-reconciler-type=none", "--cert-dir=" + s.path("certs"),
			"--token-auth-file=" + s.path("tokens"), "--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount",
			"--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://tenants", "--profiling=false",
			"--service-account-key-file=" + s.path("key.pem"), "--service-account-signing-key-file=" + s.path("key.pem"),
		}},
	} {
		if err := s.start(l, g, binary, c.memory, c.args); err != nil {
			return s, err
		}
	}
	admin, err := s.client(adminUser)
	if err != nil {
		return s, err
	}
	err = eventually(ctx, time.Minute, "the API server is ready", func() error {
		if err := s.check(); err != nil {
			return err
		}
		_, err := admin.get(ctx, "/readyz")
		return err
	})
	if err != nil {
		return s, err
	}
	kubeconfig, err := s.kubeconfig(adminUser)
	if err != nil {
		return s, err
	}
	return s, s.start(l, g, binary, controllerMemory, []string{
		"kube-controller-manager", "--kubeconfig=" + kubeconfig, "--controllers=namespace-controller", "--leader-elect=false",
		"--bind-address=127.0.0.1", "--secure-port=" + controllerPort, "--cert-dir=" + s.path("certs"),
		"--concurrent-namespace-syncs=2", "--kube-api-qps=1000", "--kube-api-burst=1000",
	})
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
	return errors.Join(os.WriteFile(s.path("key.pem"), text, 0o600), os.WriteFile(s.path("tokens"), []byte(tokens), 0o600))
}

func (s *apiServer) start(l *launcher, g *groups, binary string, memory int64, args []string) error {
	c, err := g.add(args[0], memory)
	if err != nil {
		return err
	}
	// The binary is the program by whose name it is started.
	program := s.path(args[0])
	if err := os.Symlink(binary, program); err != nil {
		return err
	}
	p, err := l.start(s.dir, command{
		name: args[0], group: c, nice: otherNice, args: append([]string{program}, args[1:]...),
		env: []string{fmt.Sprintf("GOMEMLIMIT=%d", memory/10*8)},
	})
	if err == nil {
		s.processes = append(s.processes, p)
	}
	return err
}

// check returns an error if a process has ended.
func (s *apiServer) check() error {
	for _, p := range s.processes {
		if p.hasEnded() {
			return fmt.Errorf("%s ended: %s, see %s", p.name, p.why(), p.log)
		}
	}
	return nil
}

// kubeconfig writes the kubeconfig of a user and returns its path.
func (s *apiServer) kubeconfig(user string) (string, error) {
	c := clientcmdapi.NewConfig()
	c.Clusters["tenants"] = &clientcmdapi.Cluster{Server: "https://127.0.0.1:" + serverPort, InsecureSkipTLSVerify: true}
	c.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: user}
	c.Contexts["tenants"] = &clientcmdapi.Context{Cluster: "tenants", AuthInfo: user}
	c.CurrentContext = "tenants"
	path := s.path(user + ".kubeconfig")
	return path, clientcmd.WriteToFile(*c, path)
}

// stop ends the processes in reverse order.
func (s *apiServer) stop() {
	for _, p := range slices.Backward(s.processes) {
		p.kill()
	}
	s.processes = nil
}
