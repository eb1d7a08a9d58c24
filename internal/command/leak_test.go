package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/lab"
)

var (
	leakChanges = flag.Int("leak.changes", 2000, "how many changes the leak test makes while packets are in flight")
	leakSeed    = flag.Uint64("leak.seed", 0, "seed of the leak test; 0: a random one")
)

// leakWorld is a node with three pods in real namespaces. server takes only from app=allowed; allowed may send only to
// app=server; forbidden is selected by nothing. All else in it may change.
type leakWorld struct {
	t      *testing.T
	r      *rand.Rand
	hosts  map[string]*lab.Host
	addrs  map[string]netip.Addr
	pods   map[string]*corev1.Pod // all of them, also peers that are no namespace
	policy map[string]*mnpv1.MultiNetworkPolicy
	nad    *netv1.NetworkAttachmentDefinition

	state  *cache.Cache
	agent  *reconciler
	stop   func()
	faults faults
}

func newLeakWorld(t *testing.T, r *rand.Rand) *leakWorld {
	w := &leakWorld{
		t: t, r: r, hosts: map[string]*lab.Host{}, addrs: map[string]netip.Addr{},
		pods: map[string]*corev1.Pod{}, policy: map[string]*mnpv1.MultiNetworkPolicy{},
		nad: &netv1.NetworkAttachmentDefinition{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "net"},
			Spec:       netv1.NetworkAttachmentDefinitionSpec{Config: `{"type": "bridge"}`},
		},
	}
	network := lab.ForTest(t)
	for i, name := range []string{"server", "allowed", "forbidden"} {
		addr := netip.AddrFrom4([4]byte{10, 8, 0, byte(i + 1)})
		host, err := network.Host(name, netip.PrefixFrom(addr, 16))
		if err != nil {
			t.Fatal(err)
		}
		w.hosts[name], w.addrs[name] = host, addr
		w.pods[name] = leakPod(name, "node", addr, map[string]string{"app": name})
	}
	w.policy["server"] = leakPolicy("server", "server")
	w.policy["server"].Spec.Ingress = []mnpv1.MultiNetworkPolicyIngressRule{{From: peersOf("allowed"), Ports: portsOf(floodPort)}}
	w.policy["allowed"] = leakPolicy("allowed", "allowed")
	w.policy["allowed"].Spec.PolicyTypes = []mnpv1.MultiPolicyType{mnpv1.PolicyTypeEgress}
	w.policy["allowed"].Spec.Egress = []mnpv1.MultiNetworkPolicyEgressRule{{To: peersOf("server"), Ports: portsOf(floodPort)}}
	return w
}

func leakPod(name, node string, addr netip.Addr, labels map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, UID: types.UID("uid-" + name), Labels: labels,
			Annotations: map[string]string{"k8s.v1.cni.cncf.io/network-status": fmt.Sprintf(
				`[{"name": "default/net", "interface": "net1", "ips": [%q]}]`, addr)},
		},
		Spec: corev1.PodSpec{NodeName: node},
	}
}

func leakPolicy(name, app string) *mnpv1.MultiNetworkPolicy {
	return &mnpv1.MultiNetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, Annotations: map[string]string{"k8s.v1.cni.cncf.io/policy-for": "net"},
		},
		Spec: mnpv1.MultiNetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}},
	}
}

func peersOf(apps ...string) []mnpv1.MultiNetworkPolicyPeer {
	var peers []mnpv1.MultiNetworkPolicyPeer
	for _, app := range apps {
		peers = append(peers, mnpv1.MultiNetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}})
	}
	return peers
}

func portsOf(numbers ...int) []mnpv1.MultiNetworkPolicyPort {
	var ports []mnpv1.MultiNetworkPolicyPort
	for _, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
		for _, n := range numbers {
			port := intstr.FromInt(n)
			ports = append(ports, mnpv1.MultiNetworkPolicyPort{Protocol: &protocol, Port: &port})
		}
	}
	return ports
}

// start is a new agent, which knows everything before it writes, as the pipeline sees to.
func (w *leakWorld) start() {
	w.state = cache.New(cache.Options{Node: "node", NetworkPlugins: defaultNetworkPlugins})
	features, err := engine.Probe()
	if err != nil {
		w.t.Fatal(err)
	}
	w.agent = newReconciler(w.state, w.faults.around(openEngine(features)))
	w.state.UpsertNAD(w.nad)
	for _, p := range w.pods {
		w.state.UpsertPod(p)
	}
	for _, p := range w.policy {
		w.state.UpsertPolicy(p)
	}
	for name, h := range w.hosts {
		w.state.SetSandbox(w.pods[name].UID, cache.Sandbox{ID: name, NetNS: h.NetNS()})
	}
	w.agent.Notify()
	ctx, cancel := context.WithCancel(logr.NewContext(context.Background(), testr.New(w.t)))
	var running sync.WaitGroup
	running.Go(func() { w.agent.Run(ctx) })
	w.stop = func() {
		cancel()
		running.Wait()
	}
}

func (w *leakWorld) settle() {
	w.t.Helper()
	w.agent.Notify()
	deadline := time.Now().Add(20 * time.Second)
	for !w.agent.Settled() {
		if time.Now().After(deadline) {
			w.t.Fatal("not settled in 20 s")
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// faults makes some of the applies fail, in ways that the kernel has.
type faults struct {
	mu   sync.Mutex
	rand *rand.Rand // nil: none
	made map[string]int
}

var faultKinds = []string{"refused", "lost answer", "not sent", "closed"}

type faultyTable struct {
	table
	faults *faults
}

func (f *faults) around(open openTable) openTable {
	return func(pod, netns string) (table, error) {
		inner, err := open(pod, netns)
		if err != nil {
			return nil, err
		}
		return faultyTable{inner, f}, nil
	}
}

func (f *faults) next() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rand == nil {
		return ""
	}
	if f.rand.IntN(5) > 0 {
		return ""
	}
	kind := faultKinds[f.rand.IntN(len(faultKinds))]
	f.made[kind]++
	return kind
}

// Apply fails before the kernel, in it, or after it.
func (t faultyTable) Apply(ctx context.Context, want engine.Ruleset) error {
	switch t.faults.next() {
	case "refused": // ENOENT, in the middle of a batch that would open the pod
		bad := engine.NewRuleset(slices.Clone(want.Sets), append(slices.Clone(want.Chains), &engine.Chain{
			Name: "input", Hook: engine.HookInput,
		}, &engine.Chain{
			Name:  "bad",
			Rules: []engine.Rule{{Statements: []expr.Statement{expr.Jump("no-such-chain")}}},
		}))
		err := t.table.Apply(ctx, bad)
		if err == nil {
			return errors.New("the kernel took a jump to no chain")
		}
		return err
	case "lost answer":
		return errors.Join(t.table.Apply(ctx, want), unix.ENOBUFS)
	case "not sent":
		return unix.EINTR
	case "closed":
		return errors.Join(t.Close(), unix.EBADF)
	}
	return t.table.Apply(ctx, want)
}

// change is one thing that happens to the cluster, and must change nothing for the floods.
func (w *leakWorld) change() string {
	name := fmt.Sprintf("peer%d", w.r.IntN(20))
	addr := netip.AddrFrom4([4]byte{10, 8, 1, byte(w.r.IntN(30))})
	app := []string{"allowed", "server", "other"}[w.r.IntN(3)]
	switch kind := w.r.IntN(10); kind {
	case 0, 1: // a peer on another node comes, moves, or is relabeled
		w.pods[name] = leakPod(name, "other", addr, map[string]string{"app": app})
		w.state.UpsertPod(w.pods[name])
		return "peer " + name
	case 2:
		delete(w.pods, name)
		w.state.DeletePod(types.NamespacedName{Namespace: "default", Name: name})
		return "no peer " + name
	case 3, 4: // the server's policy gets other ports, peers and rules beside the one that is there
		p := w.policy["server"].DeepCopy()
		p.Spec.Ingress = p.Spec.Ingress[:1]
		p.Spec.Ingress[0] = mnpv1.MultiNetworkPolicyIngressRule{
			From: append(peersOf("allowed"), peersOf([]string{"x", "y", "z"}[:w.r.IntN(3)]...)...), Ports: portsOf(floodPort, 6000+w.r.IntN(3)),
		}
		if w.r.IntN(2) == 0 {
			block := &mnpv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{fmt.Sprintf("10.8.0.0/%d", 16+w.r.IntN(8))}}
			p.Spec.Ingress = append(p.Spec.Ingress, mnpv1.MultiNetworkPolicyIngressRule{From: []mnpv1.MultiNetworkPolicyPeer{{IPBlock: block}}})
		}
		w.policy["server"] = p
		w.state.UpsertPolicy(p)
		return "policy edited"
	case 5: // both directions of a policy more
		p := leakPolicy("more", []string{"server", "allowed"}[w.r.IntN(2)])
		p.Spec.PolicyTypes = []mnpv1.MultiPolicyType{mnpv1.PolicyTypeIngress}
		p.Spec.Ingress = []mnpv1.MultiNetworkPolicyIngressRule{{From: peersOf("nobody")}}
		w.policy["more"] = p
		w.state.UpsertPolicy(p)
		return "policy added"
	case 6:
		delete(w.policy, "more")
		w.state.DeletePolicy(types.NamespacedName{Namespace: "default", Name: "more"})
		return "policy removed"
	case 7: // broken and mended: what is enforced stays
		w.nad.Spec.Config = []string{`{"type": "bridge"}`, `{`, `{"plugins": [{"type": "macvlan"}]}`}[w.r.IntN(3)]
		w.state.UpsertNAD(w.nad)
		return "NAD"
	case 8: // a local pod's own labels and status, as far as they do not matter
		p := w.pods["server"].DeepCopy()
		p.Labels["more"] = name
		w.pods["server"] = p
		w.state.UpsertPod(p)
		return "server relabeled"
	default: // an invalid edit allows nothing
		p := leakPolicy("invalid", "server")
		p.Spec.Ingress = []mnpv1.MultiNetworkPolicyIngressRule{{From: []mnpv1.MultiNetworkPolicyPeer{
			{IPBlock: &mnpv1.IPBlock{CIDR: []string{"10.8.0.0/99", "", "::/129", "10.8.0.3/32x"}[w.r.IntN(4)]}},
		}}}
		w.policy["invalid"] = p
		w.state.UpsertPolicy(p)
		return "invalid policy"
	}
}

// tamper is what root in a pod may try where the kernel lets it.
func (w *leakWorld) tamper() {
	err := w.hosts["server"].Do(func() error {
		c := exec.Command("nft", "flush ruleset; add table inet other; delete table inet other")
		return c.Run()
	})
	if err != nil {
		w.t.Errorf("nft: %v", err)
	}
}

// TestNoLeak floods while the state changes thousands of times, batches fail and agents end at any moment: nothing
// that is forbidden arrives, and nothing that is allowed is lost.
func TestNoLeak(t *testing.T) {
	seed := *leakSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	w := newLeakWorld(t, r)
	server, other := newSink(t, w.hosts["server"]), newSink(t, w.hosts["forbidden"])
	w.start()
	w.settle()

	to := func(name string) netip.AddrPort { return netip.AddrPortFrom(w.addrs[name], floodPort) }
	good := startFlood(t, w.hosts["allowed"], to("server"))
	bad := startFlood(t, w.hosts["forbidden"], to("server"))
	out := startFlood(t, w.hosts["allowed"], to("forbidden"))
	w.faults.rand, w.faults.made = rand.New(rand.NewPCG(seed, 1)), map[string]int{}
	restarts, start := 0, time.Now()
	for i := range *leakChanges {
		w.change()
		w.agent.Notify()
		switch {
		case i%100 == 50: // stopped, in order
			w.stop()
			w.start()
			restarts++
		case i%250 == 200: // others flush what they can, which is nothing while the tables have their owner
			w.settle()
			w.tamper()
		case i%7 == 0:
			w.settle()
		}
	}
	w.settle()
	t.Logf("%d changes, %d restarts in %s; faults: %v", *leakChanges, restarts, time.Since(start).Round(time.Millisecond), w.faults.made)
	for _, f := range []*flood{good, bad, out} {
		f.end()
	}
	time.Sleep(100 * time.Millisecond) // what is in flight arrives
	w.stop()

	server.allFrom(t, w.addrs["allowed"], good)
	if good.sent.Load() < uint64(*leakChanges)/10 {
		t.Errorf("not a flood: %d datagrams", good.sent.Load())
	}
	server.nothingFrom(t, w.addrs["forbidden"], bad)
	other.nothingFrom(t, w.addrs["allowed"], out)
	for _, kind := range faultKinds {
		if w.faults.made[kind] == 0 && *leakChanges >= 1000 {
			t.Errorf("no fault of the kind %q", kind)
		}
	}
}
