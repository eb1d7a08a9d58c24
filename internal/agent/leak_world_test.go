package agent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/reconciler"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// leakWorld is a node with three pods in real namespaces. server takes only from app=allowed; allowed may send only to
// app=server; forbidden is selected by nothing. All else in it may change.
type leakWorld struct {
	t        *testing.T
	r        *rand.Rand
	network  *lab.Lab
	hosts    map[string]*lab.Host
	addrs    map[string]netip.Addr
	pods     map[string]*corev1.Pod // all of them, also peers that are no namespace
	policy   map[string]*mnpv1.MultiNetworkPolicy
	nad      *netv1.NetworkAttachmentDefinition
	crowded  bool // the pods of the namespace crowd are peers, too
	restarts int  // of the agent

	guest   *lab.Host // a virtual machine in the server's pod; nil: none
	own     bool      // tables have an owner
	options cache.Options
	state   *cache.Cache
	agent   *reconciler.Reconciler
	metrics *metrics
	log     node.Log
	stop    func()
	tables  tables
}

// onBothPaths runs a test with tables that are the agent's own, where the kernel has such, and with tables that anybody
// can change.
func onBothPaths(t *testing.T, test func(t *testing.T, own bool)) {
	features, err := engine.Probe()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("owner", func(t *testing.T) {
		if !features.Owner {
			t.Skip("SKIPPED: this kernel has no tables that have an owner and outlive it (6.9)")
		}
		test(t, true)
	})
	t.Run("no owner", func(t *testing.T) { test(t, false) })
}

func newLeakWorld(t *testing.T, r *rand.Rand, own bool) *leakWorld {
	w := &leakWorld{
		t: t, r: r, own: own, options: cache.Options{Node: "node", NetworkPlugins: cache.DefaultNetworkPlugins(), DropLog: cache.DropLogAnnotated},
		metrics: newMetrics(""), hosts: map[string]*lab.Host{}, addrs: map[string]netip.Addr{},
		pods: map[string]*corev1.Pod{}, policy: map[string]*mnpv1.MultiNetworkPolicy{},
		nad: &netv1.NetworkAttachmentDefinition{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "net"},
			Spec:       netv1.NetworkAttachmentDefinitionSpec{Config: `{"type": "bridge"}`},
		},
	}
	w.network = lab.ForTest(t)
	for i, name := range []string{"server", "allowed", "forbidden"} {
		addr := netip.AddrFrom4([4]byte{10, 8, 0, byte(i + 1)})
		host, err := w.network.Host(name, netip.PrefixFrom(addr, 16), netip.PrefixFrom(v6Of(addr), 64))
		if err != nil {
			t.Fatal(err)
		}
		w.hosts[name], w.addrs[name] = host, addr
		w.pods[name] = leakPod(name, "node", addr, map[string]string{"app": name})
	}
	w.policy["server"] = leakPolicy("server", "server")
	w.policy["server"].Spec.Ingress = []mnpv1.MultiNetworkPolicyIngressRule{{From: allowedPeers(), Ports: portsOf(lab.FloodPort)}}
	for i := range crowd {
		name := fmt.Sprintf("crowd%d", i)
		w.pods[name] = leakPod(name, "other", netip.AddrFrom4([4]byte{10, 8, byte(16 + i>>7), byte(i << 1)}), nil)
		w.pods[name].Namespace = "crowd"
	}
	w.policy["allowed"] = leakPolicy("allowed", "allowed")
	w.policy["allowed"].Spec.PolicyTypes = []mnpv1.MultiPolicyType{mnpv1.PolicyTypeEgress}
	w.policy["allowed"].Spec.Egress = []mnpv1.MultiNetworkPolicyEgressRule{{To: peersOf("server"), Ports: portsOf(lab.FloodPort)}}
	return w
}

// newSettledWorld is a world in which the policies are in force.
func newSettledWorld(t *testing.T, own bool) *leakWorld {
	w := newLeakWorld(t, rand.New(rand.NewPCG(1, 1)), own)
	w.start()
	t.Cleanup(func() { w.stop() })
	w.settle()
	return w
}

func leakPod(name, node string, addr netip.Addr, labels map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, UID: types.UID("uid-" + name), Labels: labels,
			Annotations: map[string]string{"k8s.v1.cni.cncf.io/network-status": fmt.Sprintf(
				`[{"name": "default/net", "interface": "net1", "ips": [%q, %q]}]`, addr, v6Of(addr))},
		},
		Spec: corev1.PodSpec{NodeName: node},
	}
}

// v6Of is the address of IPv6 that a pod has beside its address of IPv4.
func v6Of(addr netip.Addr) netip.Addr {
	v4 := addr.As4()
	return netip.AddrFrom16([16]byte{0: 0xfd, 14: v4[2], 15: v4[3]})
}

// virtualize puts a virtual machine into the server's pod. It takes the place of the server: it has the addresses.
func (w *leakWorld) virtualize() {
	w.t.Helper()
	w.pods["server"].Labels["kubevirt.io"] = "virt-launcher"
	var err error
	if w.guest, err = w.hosts["server"].VirtualMachine("net1"); err != nil {
		w.t.Fatal(err)
	}
}

// server is the host that has the server's addresses.
func (w *leakWorld) server() *lab.Host {
	if w.guest != nil {
		return w.guest
	}
	return w.hosts["server"]
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

// crowd is the number of pods in the namespace crowd. While they are peers, the group has two sets.
const crowd = 600

// allowedPeers are the pods with app=allowed and, while they are a crowd, the pods of the namespace crowd.
func allowedPeers() []mnpv1.MultiNetworkPolicyPeer {
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"crowd": "true"}}
	return append(peersOf("allowed"), mnpv1.MultiNetworkPolicyPeer{NamespaceSelector: selector})
}

func (w *leakWorld) putCrowd() {
	labels := labelindex.NewSet(map[string]string{"crowd": fmt.Sprint(w.crowded)})
	w.state.UpsertNamespace(cache.Namespace{Name: "crowd", Labels: labels})
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
	w.state = cache.New(w.options)
	w.agent = reconciler.New(w.state, w.tables.around(w.metrics.meter(reconciler.OpenNamespace(engine.Features{Owner: w.own}))), reconciler.BudgetOf(w.state.Limits()), nil)
	w.putNAD()
	w.putCrowd()
	for _, p := range w.pods {
		w.putPod(p)
	}
	for _, p := range w.policy {
		w.putPolicy(p)
	}
	for name, h := range w.hosts {
		w.state.SetSandbox(w.pods[name].UID, cache.Sandbox{ID: name, NetNS: h.NetNS()})
	}
	w.agent.Notify()
	ctx, cancel := context.WithCancel(logr.NewContext(context.Background(), w.log.Logger()))
	var running sync.WaitGroup
	running.Go(func() { w.agent.Run(ctx) })
	w.stop = func() {
		cancel()
		running.Wait()
	}
}

func (w *leakWorld) putPod(p *corev1.Pod) {
	w.state.UpsertPod(cache.NewPod(p, "node", w.state.Limits()))
}

func (w *leakWorld) putPolicy(p *mnpv1.MultiNetworkPolicy) {
	w.state.UpsertPolicy(policy.Compile(policy.ObjectOf(p), w.state.Limits()))
}

func (w *leakWorld) putNAD() {
	w.state.UpsertNAD(cache.NewNAD(cache.Key{Namespace: w.nad.Namespace, Name: w.nad.Name}, w.nad.Spec.Config))
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
