package command

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

var (
	killRounds = flag.Int("kill.rounds", 30, "how many agents the kill test ends while packets are in flight")
	killSeed   = flag.Uint64("kill.seed", 0, "seed of the kill test; 0: a random one")
)

// killBase is the node with the pods server and friend. In it, only the friend reaches the server, and the friend reaches nothing
// else. The objects that killWorld adds do not change this.
var killBase = strings.ReplaceAll(node.Cluster, "nodeName: elsewhere", "nodeName: here")

const killPolicies = `
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: in, uid: in,
  annotations: {k8s.v1.cni.cncf.io/policy-for: net}}, spec: {podSelector: {matchLabels: {app: server}}, ingress: [
    {from: [{podSelector: {matchLabels: {app: friend}}}%s], ports: [{port: 5000}, {port: 5000, protocol: UDP}%s]}%s]}}
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: out, uid: out,
  annotations: {k8s.v1.cni.cncf.io/policy-for: net}}, spec: {podSelector: {matchLabels: {app: friend}}, policyTypes: [Egress],
    egress: [{to: [{podSelector: {matchLabels: {app: server}}}%s], ports: [{port: 5000}, {port: 5000, protocol: UDP}%s]}]}}
`

func killWorld(r *rand.Rand) string {
	oneOf := func(texts ...string) string { return texts[r.IntN(len(texts))] }
	var b strings.Builder
	b.WriteString(killBase)
	fmt.Fprintf(&b, killPolicies,
		oneOf("", ", {podSelector: {matchLabels: {app: other}}}"), oneOf("", ", {port: 6000}", ", {port: 7000, endPort: 8000}"),
		oneOf("", ", {from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16]}}]}"),
		oneOf("", ", {podSelector: {matchLabels: {app: other}}}"), oneOf("", ", {port: 6000}"))
	for i := range r.IntN(8) {
		fmt.Fprintf(&b, `
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: peer%d, uid: peer%d, labels: {app: %s}, annotations: {
  k8s.v1.cni.cncf.io/network-status: '[{"name": "ns/net", "interface": "net1", "ips": ["10.9.1.%d"]}]'}},
  spec: {nodeName: elsewhere}, status: {phase: Running}}
`, i, i, oneOf("friend", "server", "other"), r.IntN(20))
	}
	if r.IntN(2) == 0 { // isolates pods that are isolated already, and allows nothing
		b.WriteString(`
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: more, uid: more,
  annotations: {k8s.v1.cni.cncf.io/policy-for: net}}, spec: {podSelector: {matchLabels: {app: server}}}}
`)
	}
	return b.String()
}

// killRig is a node with an agent that has enforced the policies.
func killRig(t *testing.T, r *rand.Rand) (*node.Node, *process) {
	k := node.New(t)
	k.Load(killWorld(r))
	k.StartRuntime("server", "friend")
	p := startProcess(t, k)
	for from, to := range map[string]string{"stranger": "10.9.0.1:5000", "friend": "10.9.0.3:5000"} {
		await.That(t, "isolated", func() bool {
			r := lab.Probe(t.Context(), k.Hosts[from], netip.MustParseAddrPort(to), lab.TCP, 250*time.Millisecond)
			return r.Verdict == lab.Dropped
		})
	}
	return k, p
}

// TestKill ends agents at random moments, with packets in flight and while objects change: by SIGKILL, by SIGTERM, by a panic,
// and by a newer agent that starts before the old agent ends. Rules stay in force, no forbidden packet arrives, and no allowed
// packet is lost. In the end the last agent enforces the policies.
func TestKill(t *testing.T) {
	seed := *killSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	k, agent := killRig(t, r)
	server, stranger := lab.NewSink(t, k.Hosts["server"]), lab.NewSink(t, k.Hosts["stranger"])
	good := lab.StartFlood(t, k.Hosts["friend"], netip.MustParseAddrPort("10.9.0.1:5000"), lab.AllowedPatience)
	bad := lab.StartFlood(t, k.Hosts["stranger"], netip.MustParseAddrPort("10.9.0.1:5000"), lab.ForbiddenPatience)
	out := lab.StartFlood(t, k.Hosts["friend"], netip.MustParseAddrPort("10.9.0.3:5000"), lab.ForbiddenPatience)

	agent, changes, applied := killAgents(t, k, agent, r)
	agent.says("All inputs in sync")
	for _, f := range []*lab.Flood{good, bad, out} {
		f.End()
	}
	time.Sleep(100 * time.Millisecond) // packets in flight arrive
	t.Logf("%d changes, %d times enforced", changes, applied)
	if applied < 2**killRounds {
		t.Errorf("enforced %d times in the lives of %d agents", applied, *killRounds)
	}
	server.HasAllFrom(t, netip.MustParseAddr("10.9.0.2"), good)
	server.HasNothingFrom(t, netip.MustParseAddr("10.9.0.3"), bad)
	stranger.HasNothingFrom(t, netip.MustParseAddr("10.9.0.2"), out)
	k.Load(killBase + fmt.Sprintf(killPolicies, "", ", {port: 80}", "", "", ", {port: 80}"))
	k.Becomes("the last agent's", true, false)
	k.Load(killBase)
	k.Becomes("released by the last agent", true, true)
	agent.end(syscall.SIGTERM)
}

// killAgents starts and ends agents while objects change. It returns the last agent, the number of changes of objects, and the
// number of changes of a pod's rules.
func killAgents(t *testing.T, k *node.Node, agent *process, r *rand.Rand) (last *process, changes, applied int) {
	t.Helper()
	change := func(until time.Time) {
		for time.Now().Before(until) {
			k.Load(killWorld(r))
			changes++
			time.Sleep(time.Duration(r.IntN(8)) * time.Millisecond)
		}
	}
	signals := []syscall.Signal{syscall.SIGKILL, syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL, syscall.SIGUSR1}
	for round := range *killRounds {
		if round%4 > 0 { // otherwise the agent may end before it is in sync
			agent.says("All inputs in sync")
		}
		change(time.Now().Add(time.Duration(r.IntN(300)) * time.Millisecond))
		next := agent
		if round%6 == 5 {
			next = startProcess(t, k)
			next.says("All inputs in sync")
			change(time.Now().Add(100 * time.Millisecond))
		}
		agent.end(signals[round%len(signals)])
		applied += strings.Count(agent.logged(), "Policies enforced")
		if next == agent {
			next = startProcess(t, k)
		}
		agent = next
	}
	return agent, changes, applied
}

// TestNothingBeforeSync checks that the agent does not change a table until all inputs are in sync, even if the table is
// outdated.
func TestNothingBeforeSync(t *testing.T) {
	k, agent := killRig(t, rand.New(rand.NewPCG(1, 1)))
	agent.end(syscall.SIGKILL)
	k.Load(killBase) // without policies, so the agent must remove the tables
	before := lab.Generation(t, k.Hosts["server"])
	stays := func(what string) {
		t.Helper()
		time.Sleep(500 * time.Millisecond)
		if lab.Generation(t, k.Hosts["server"]) != before {
			t.Errorf("a batch without %s", what)
		}
	}
	k.API.Stop()
	k.Runtime.Stop()
	startProcess(t, k).says("Starting")
	stays("any input")
	if err := k.Runtime.Start(); err != nil {
		t.Fatal(err)
	}
	stays("the API server")
	if err := k.API.Start(); err != nil {
		t.Fatal(err)
	}
	await.That(t, "the table goes", func() bool { return lab.Generation(t, k.Hosts["server"]) != before })
}
