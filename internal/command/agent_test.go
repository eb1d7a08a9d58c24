package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/testcluster"
)

const agentCluster = `
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

const agentPolicy = `
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: p, uid: p,
  annotations: {k8s.v1.cni.cncf.io/policy-for: net}}, spec: {podSelector: {matchLabels: {app: server}}, ingress: [
    {from: [{podSelector: {matchLabels: {app: friend}}}, {ipBlock: {cidr: 10.9.0.0/33}}]}]}}
`

// rig is a node: a kernel, an API server and a container runtime, and the agent, as its command line starts it.
type rig struct {
	t       *testing.T
	files   *informers.Files
	api     *testcluster.API
	runtime *testcluster.Runtime
	agent   agentOptions
	network *lab.Lab
	hosts   map[string]*lab.Host
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "rig")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, files: informers.NewFiles(), hosts: map[string]*lab.Host{}}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if r.api, err = testcluster.NewAPI(r.files, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.api.Stop)
	socket := filepath.Join(dir, "cri.sock")
	r.runtime = testcluster.NewRuntime(socket)
	t.Cleanup(r.runtime.Stop)
	kubeconfig := filepath.Join(dir, "kubeconfig")
	config := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: %q}}],
  contexts: [{name: c, context: {cluster: c, user: u}}], users: [{name: u, user: {}}]}`, r.api.URL())
	if err := os.WriteFile(kubeconfig, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	r.agent = agentOptions{
		hostname: "Here", api: apiOptions{kubeconfig}, runtime: runtimeOptions{endpoint: socket},
		nri: nriOptions{informers.NRINone}, table: tableOptions{networkPlugins: defaultNetworkPlugins},
	}
	r.network = lab.ForTest(t)
	for i, name := range []string{"server", "friend", "stranger"} {
		h, err := r.network.Host(name, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}), 16))
		if err != nil {
			t.Fatal(err)
		}
		r.hosts[name] = h
	}
	if err := r.hosts["server"].Serve(t.Context(), lab.TCP, 80); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) load(documents string) {
	r.t.Helper()
	m, err := informers.ReadFS(fstest.MapFS{"world.yaml": {Data: []byte(documents)}})
	if err == nil {
		err = r.files.Load(m)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// start starts the agent. It fails the test when the agent ends by itself.
func (r *rig) start() (stop func()) {
	ctx, cancel := context.WithCancel(logr.NewContext(context.Background(), testr.New(r.t)))
	done := make(chan error, 1)
	go func() { done <- r.agent.run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		select {
		case err := <-done:
			r.t.Errorf("the agent ended by itself: %v", err)
		default:
		}
		cancel()
		end := time.Now()
		if err := <-done; err != nil {
			r.t.Errorf("the agent: %v", err)
		}
		if took := time.Since(end); took > 5*time.Second {
			r.t.Errorf("the agent took %s to end", took)
		}
	}
	r.t.Cleanup(stop)
	return stop
}

// reaches says who gets an answer from the server. An answer that is expected may take its time on a busy machine.
func (r *rig) reaches(from string, patience time.Duration) bool {
	r.t.Helper()
	to := netip.MustParseAddrPort("10.9.0.1:80")
	result := lab.Probe(r.t.Context(), r.hosts[from], to, lab.TCP, patience)
	if result.Verdict == lab.Failed {
		r.t.Fatalf("probe from %s: %v", from, result.Err)
	}
	return result.Verdict == lab.Allowed
}

func (r *rig) becomes(what string, friend, stranger bool) {
	r.t.Helper()
	const poll = 300 * time.Millisecond
	for deadline := time.Now().Add(30 * time.Second); r.reaches("friend", poll) != friend || r.reaches("stranger", poll) != stranger; {
		if time.Now().After(deadline) {
			r.t.Fatalf("never: %s", what)
		}
	}
}

func (r *rig) stays(what string, friend, stranger bool) {
	r.t.Helper()
	patience := map[bool]time.Duration{true: 10 * time.Second, false: 300 * time.Millisecond}
	for range 3 {
		if r.reaches("friend", patience[friend]) != friend || r.reaches("stranger", patience[stranger]) != stranger {
			r.t.Fatalf("not so: %s", what)
		}
	}
}

// The agent as a whole, over real sockets and a real kernel: it waits for an API server and a runtime that are not there
// yet, enforces, reports what is wrong with a policy, keeps everything in force when it loses them and when it ends, and
// takes up what changed meanwhile when it starts again.
func TestAgent(t *testing.T) {
	r := newRig(t)
	r.load(agentCluster + agentPolicy)
	r.runtime.Set(testcluster.Sandbox{
		ID: "s1", UID: "server", Namespace: "ns", Name: "server", CreatedAt: 1,
		Info: testcluster.InfoOf(r.hosts["server"].NetNS()),
	})
	r.api.Stop()
	stop := r.start()
	time.Sleep(300 * time.Millisecond)
	r.stays("open before anything is known", true, true)
	if err := r.runtime.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	r.stays("open before the API server is known", true, true)
	if err := r.api.Start(); err != nil {
		t.Fatal(err)
	}
	r.becomes("enforced", true, false)
	// An error that answers a packet of the pod passes, from whom nothing else does.
	refused := lab.Probe(t.Context(), r.hosts["server"], netip.MustParseAddrPort("10.9.0.3:9"), lab.UDP, 10*time.Second)
	if !errors.Is(refused.Err, unix.ECONNREFUSED) {
		t.Errorf("the ICMP error to the server's own packet: %+v", refused)
	}
	for deadline := time.Now().Add(10 * time.Second); len(r.api.Events()) == 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	events := r.api.Events()
	if len(events) != 1 || events[0].InvolvedObject.Name != "p" || !strings.Contains(events[0].Message, "10.9.0.0/33") {
		t.Errorf("events: %+v", events)
	}

	r.api.Stop()
	r.runtime.Stop()
	r.stays("enforced without API server and runtime", true, false)
	time.Sleep(3 * time.Second) // the pauses between tries grow
	stop()
	r.stays("enforced without the agent", true, false)

	if err := r.api.Start(); err != nil {
		t.Fatal(err)
	}
	if err := r.runtime.Start(); err != nil {
		t.Fatal(err)
	}
	r.load(strings.ReplaceAll(agentCluster+agentPolicy, "app: friend}}}", "app: nobody}}}"))
	stop = r.start()
	r.becomes("the change made meanwhile", false, false)
	stop()
	r.load(agentCluster)
	stop = r.start()
	r.becomes("the deletion made meanwhile", true, true)
	r.load(agentCluster + agentPolicy)
	r.becomes("enforced again", true, false)
	r.load(agentCluster)
	r.becomes("open again", true, true)
	stop()
}

// An error is one line and a non-zero exit code.
func TestMistakes(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for _, tc := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{}, "not in a cluster", 1},
		{[]string{"--no-such-flag"}, "unknown flag", 2},
		{[]string{"--established", "maybe"}, "neither keep nor revoke", 2},
		{[]string{"no-such-command"}, "unknown command", 2},
		{[]string{"--kubeconfig", "/nonexistent"}, "/nonexistent", 1},
		{[]string{"version", "--logging-format", "xml"}, "xml", 2},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := Main("v1", tc.args, &stdout, &stderr); code != tc.code {
				t.Errorf("exit code %d", code)
			}
			line := stderr.String()
			if stdout.Len() > 0 || strings.Count(line, "\n") != 1 || !strings.HasPrefix(line, program+": ") || !strings.Contains(line, tc.want) {
				t.Errorf("stdout %q, stderr %q", stdout.String(), line)
			}
		})
	}
	var stdout, stderr bytes.Buffer
	if code := Main("v1.2.3", []string{"version"}, &stdout, &stderr); code != 0 || !strings.Contains(stdout.String(), "v1.2.3") {
		t.Errorf("version: %d, %q, %q", code, stdout.String(), stderr.String())
	}
	stdout.Reset()
	var answer versionAnswer
	if code := Main("v1.2.3", []string{"version", "-o", "json"}, &stdout, &stderr); code != 0 ||
		json.Unmarshal(stdout.Bytes(), &answer) != nil || answer.Version != "v1.2.3" || answer.Go == "" {
		t.Errorf("version: %d, %q, %q", code, stdout.String(), stderr.String())
	}
	if err := error(exitCode(3)); !errors.As(err, new(exitCode)) {
		t.Error(err)
	}
}
