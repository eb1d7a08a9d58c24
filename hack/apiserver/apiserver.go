package apiserver

import (
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

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Binary returns the path of the program that hack/cluster/bootstrap.sh built last: all of Kubernetes and etcd. The program does
// the work of the name by which it is started.
func Binary() (string, error) {
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

// Server is an API server and its etcd, which listen on ports of 127.0.0.1.
type Server struct {
	Dir                          string // files of both processes
	EtcdPort, EtcdPeerPort, Port string
	Issuer                       string // of the tokens of service accounts
	Tokens                       string // a line for each user: token, user, UID, groups
}

// Path returns the path of a file of the server.
func (s *Server) Path(name string) string { return filepath.Join(s.Dir, name) }

// URL returns the URL of the API server.
func (s *Server) URL() string { return "https://127.0.0.1:" + s.Port }

// Config returns the configuration of a client with this token. The client verifies no certificate and has no rate limit.
func (s *Server) Config(token string) *rest.Config {
	return &rest.Config{Host: s.URL(), BearerToken: token, TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: -1}
}

// WriteFiles writes the key and the tokens that the API server reads.
func (s *Server) WriteFiles() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	return errors.Join(os.WriteFile(s.Path("key.pem"), text, 0o600), os.WriteFile(s.Path("tokens"), []byte(s.Tokens), 0o600))
}

// Etcd returns the command line of etcd, with further flags.
func (s *Server) Etcd(flags ...string) []string {
	clients, peers := s.etcdURL(), "http://127.0.0.1:"+s.EtcdPeerPort
	return append([]string{
		"etcd", "--data-dir=" + s.Path("etcd-data"), "--unsafe-no-fsync", "--log-level=error",
		"--listen-client-urls=" + clients, "--advertise-client-urls=" + clients, "--listen-peer-urls=" + peers,
		"--initial-advertise-peer-urls=" + peers, "--initial-cluster=default=" + peers,
	}, flags...)
}

func (s *Server) etcdURL() string { return "http://127.0.0.1:" + s.EtcdPort }

// APIServer returns the command line of the API server, with further flags.
func (s *Server) APIServer(flags ...string) []string {
	key := s.Path("key.pem")
	return append([]string{
		"kube-apiserver", "--etcd-servers=" + s.etcdURL(), "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
		"--secure-port=" + s.Port, "--endpoint-reconciler-type=none", "--cert-dir=" + s.Path("certs"),
		"--token-auth-file=" + s.Path("tokens"), "--disable-admission-plugins=ServiceAccount",
		"--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=" + s.Issuer,
		"--service-account-key-file=" + key, "--service-account-signing-key-file=" + key,
	}, flags...)
}

// WriteKubeconfig writes a kubeconfig for a server that the client does not verify. An empty token: the client sends none.
func WriteKubeconfig(path, server, token string) error {
	c := clientcmdapi.NewConfig()
	c.Clusters["test"] = &clientcmdapi.Cluster{Server: server, InsecureSkipTLSVerify: true}
	c.AuthInfos["test"] = &clientcmdapi.AuthInfo{Token: token}
	c.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	c.CurrentContext = "test"
	return clientcmd.WriteToFile(*c, path)
}
