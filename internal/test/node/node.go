package node

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/nft"
)

// Name is the name of the node. Pods with this nodeName are local for the agent under test.
const Name = "here"

// Cluster is the manifest of the pod server on the node and the pod friend on another node. The host stranger is no pod.
const Cluster = `
{apiVersion: k8s.cni.cncf.io/v1, kind: NetworkAttachmentDefinition, metadata: {namespace: ns, name: net},
  spec: {config: '{"type": "macvlan"}'}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: server, uid: server, labels: {app: server}, annotations: {
  k8s.v1.cni.cncf.io/network-status: '[{"name": "ns/net", "interface": "net1", "ips": ["10.9.0.1"]}]'}},
  spec: {nodeName: here}, status: {phase: Running}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: friend, uid: friend, labels: {app: friend}, annotations: {
  k8s.v1.cni.cncf.io/network-status: '[{"name": "ns/net", "interface": "net1", "ips": ["10.9.0.2"]}]'}},
  spec: {nodeName: elsewhere}, status: {phase: Running}}
`

// Policy is the manifest of a policy that allows only the friend to reach the server. It has an invalid field on purpose.
const Policy = `
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: p, uid: p,
  annotations: {k8s.v1.cni.cncf.io/policy-for: net}}, spec: {podSelector: {matchLabels: {app: server}}, ingress: [
    {from: [{podSelector: {matchLabels: {app: friend}}}, {ipBlock: {cidr: 10.9.0.0/33}}]}]}}
`

// Node is a node without its agent. Its runtime listens only after StartRuntime or Runtime.Start.
type Node struct {
	t       *testing.T
	Files   *informers.Files // the objects of the API server
	API     *cluster.API
	Runtime *cluster.Runtime
	Network *lab.Lab
	Hosts   map[string]*lab.Host // server, friend and stranger; tests may add hosts

	Kubeconfig, RuntimeSocket string
}

// New makes a node, which is removed at the end of the test. The server listens on TCP port 80.
func New(t *testing.T) *Node {
	t.Helper()
	dir, err := os.MkdirTemp("", "node") // the path of a socket may not be as long as that of t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	n := &Node{
		t: t, Files: informers.NewFiles(), Network: lab.ForTest(t), Hosts: map[string]*lab.Host{},
		Kubeconfig: filepath.Join(dir, "kubeconfig"), RuntimeSocket: filepath.Join(dir, "cri.sock"),
	}
	if n.API, err = cluster.NewAPI(n.Files, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.API.Stop)
	n.Runtime = cluster.NewRuntime(n.RuntimeSocket)
	t.Cleanup(n.Runtime.Stop)
	config := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: %q}}],
  contexts: [{name: c, context: {cluster: c, user: u}}], users: [{name: u, user: {}}]}`, n.API.URL())
	if err := os.WriteFile(n.Kubeconfig, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	// The hosts have the addresses 10.9.0.1 to 10.9.0.3, as the manifests say.
	for i, name := range []string{"server", "friend", "stranger"} {
		h, err := n.Network.Host(name, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}), 16))
		if err != nil {
			t.Fatal(err)
		}
		n.Hosts[name] = h
	}
	if err := n.Hosts["server"].Serve(t.Context(), lab.TCP, 80); err != nil {
		t.Fatal(err)
	}
	return n
}

// Load replaces all objects of the API server by the objects in the documents.
func (n *Node) Load(documents string) {
	n.t.Helper()
	m, err := informers.ReadFS(fstest.MapFS{"world.yaml": {Data: []byte(documents)}})
	if err == nil {
		err = n.Files.Load(m)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// StartRuntime starts the runtime with sandboxes of these pods. The network namespace of a pod is that of the host with its name.
func (n *Node) StartRuntime(pods ...string) {
	n.t.Helper()
	n.SetSandboxes(pods...)
	if err := n.Runtime.Start(); err != nil {
		n.t.Fatal(err)
	}
}

// SetSandboxes replaces the sandboxes of the runtime by sandboxes of these pods.
func (n *Node) SetSandboxes(pods ...string) {
	var sandboxes []cluster.Sandbox
	for _, name := range pods {
		sandboxes = append(sandboxes, cluster.Sandbox{
			ID: "sandbox-" + name, UID: name, Namespace: "ns", Name: name, CreatedAt: 1, Info: cluster.InfoOf(PathOf(n.Hosts[name])),
		})
	}
	n.Runtime.Set(sandboxes...)
}

// PathOf returns the path by which other processes can open the host's network namespace, until this process ends.
func PathOf(h *lab.Host) string {
	return strings.Replace(h.NetNS(), "/proc/self/", fmt.Sprintf("/proc/%d/", os.Getpid()), 1)
}

// Reaches reports whether the server answers a host within the timeout patience.
func (n *Node) Reaches(from string, patience time.Duration) bool {
	n.t.Helper()
	to := netip.MustParseAddrPort("10.9.0.1:80")
	result := lab.Probe(n.t.Context(), n.Hosts[from], to, lab.TCP, patience)
	if result.Verdict == lab.Failed {
		n.t.Fatalf("probe from %s: %v", from, result.Err)
	}
	return result.Verdict == lab.Allowed
}

// IsEnforced waits until the server has the rules of the agent, or has none. It looks for a hook: without policies, the
// table is gone.
func (n *Node) IsEnforced(want bool) {
	n.t.Helper()
	await.That(n.t, fmt.Sprintf("enforced %t", want), func() bool {
		out, _ := nft.Run(n.Hosts["server"], "", "list", "table", "inet", "multi_networkpolicy") //nolint:errcheck // without a table it fails
		return strings.Contains(out, "hook") == want
	})
}

// Becomes waits up to a minute until the friend and the stranger reach the server, or do not reach it, as given. On a busy machine
// an answer can be late, so Becomes believes a missing answer only after a second look, which takes longer.
func (n *Node) Becomes(what string, friend, stranger bool) {
	n.t.Helper()
	const poll, look = 300 * time.Millisecond, time.Second
	isSo := func(patience time.Duration) bool {
		return n.Reaches("friend", patience) == friend && n.Reaches("stranger", patience) == stranger
	}
	// Without the pause, a minute of probes would use all ports of the prober.
	for deadline := time.Now().Add(time.Minute); !isSo(poll) || !isSo(look); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("never: %s", what)
		}
	}
}

// Stays fails the test unless the friend and the stranger reach the server, or do not reach it, as given, three times in a row.
func (n *Node) Stays(what string, friend, stranger bool) {
	n.t.Helper()
	// A packet that must pass may be late on a busy machine. Waiting as long for a packet that must not pass would only
	// take time.
	patience := map[bool]time.Duration{true: 10 * time.Second, false: 300 * time.Millisecond}
	for range 3 {
		if n.Reaches("friend", patience[friend]) != friend || n.Reaches("stranger", patience[stranger]) != stranger {
			n.t.Fatalf("not so: %s", what)
		}
	}
}
