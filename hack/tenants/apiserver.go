package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/apiserver"
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

// agentAccount is the user name of a service account, as the API server builds it from namespace and name.
const agentAccount = "system:serviceaccount:multi-networkpolicy-system:multi-networkpolicy-nftables"

// tokens is the token file: token, user, UID, groups.
const tokens = adminUser + `,admin,admin,system:masters
` + victimUser + `,victim,victim,
` + tenantUser + `,evil,evil,
` + agentUser + "," + agentAccount + `,agent,"system:serviceaccounts,system:serviceaccounts:multi-networkpolicy-system"
`

// apiServer is etcd, kube-apiserver and the namespace controller.
// The namespace controller deletes the objects of a deleted namespace; no other controller is needed.
type apiServer struct {
	apiserver.Server
	processes []*process
}

// startAPIServer starts the processes and waits until the API server is ready.
func startAPIServer(ctx context.Context, l *launcher, g *groups, dir string) (*apiServer, error) {
	s := &apiServer{Server: apiserver.Server{
		Dir: dir, EtcdPort: etcdPort, EtcdPeerPort: etcdPeerPort, Port: serverPort, Issuer: "https://tenants", Tokens: tokens,
	}}
	binary, err := apiserver.Binary()
	if err != nil {
		return s, err
	}
	if err := s.WriteFiles(); err != nil {
		return s, err
	}
	for _, c := range []struct {
		memory int64
		args   []string
	}{
		// etcd may grow to 4 GiB, twice its default, as several attacks write objects of more than a megabyte again
		// and again.
		{etcdMemory, s.Etcd("--quota-backend-bytes=4294967296")},
		// RBAC decides, so that the tenant, the victim and the agent have exactly the rights of their roles.
		{serverMemory, s.APIServer("--authorization-mode=RBAC", "--profiling=false")},
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
		// Only this controller runs, with enough requests per second that the deletion of a namespace does not wait
		// for its client.
		"kube-controller-manager", "--kubeconfig=" + kubeconfig, "--controllers=namespace-controller", "--leader-elect=false",
		"--bind-address=127.0.0.1", "--secure-port=" + controllerPort, "--cert-dir=" + s.Path("certs"),
		"--concurrent-namespace-syncs=2", "--kube-api-qps=1000", "--kube-api-burst=1000",
	})
}

// start starts a process of the binary in a cgroup of its own. args[0] is the name of the program.
func (s *apiServer) start(l *launcher, g *groups, binary string, memory int64, args []string) error {
	c, err := g.add(args[0], memory)
	if err != nil {
		return err
	}
	// The binary is the program by whose name it is started.
	program := s.Path(args[0])
	if err := os.Symlink(binary, program); err != nil {
		return err
	}
	p, err := l.start(s.Dir, command{
		name: args[0], group: c, nice: otherNice, args: append([]string{program}, args[1:]...),
		// The garbage collector keeps below the limit of the cgroup; 80% leaves room for memory outside the Go heap.
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
	path := s.Path(user + ".kubeconfig")
	return path, apiserver.WriteKubeconfig(path, s.URL(), user)
}

// stop ends the processes in reverse order.
func (s *apiServer) stop() {
	for _, p := range slices.Backward(s.processes) {
		p.kill()
	}
	s.processes = nil
}
