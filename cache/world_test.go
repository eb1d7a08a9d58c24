package cache

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

var (
	worldNamespaces = []string{"a", "b", "c"}
	worldNetworks   = []string{"a/one", "a/two", "b/one", "three"}
	worldAddrs      = []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.1", "10.1.0.1", "192.168.0.1", "fd00::1", "fd00::2", "fd01::1"}
	worldBlocks     = []string{"10.0.0.0/8", "10.0.0.0/24", "10.0.0.2/31", "0.0.0.0/0", "fd00::/16", "::/0", "10.0.0.3/32", "bad"}
)

// world makes random objects of few names, labels and addresses, so that they meet.
type world struct{ *rand.Rand }

func newWorld(seed uint64) world { return world{rand.New(rand.NewPCG(seed, seed))} }

func pick[T any](w world, from ...T) T { return from[w.IntN(len(from))] }

func (w world) labels() map[string]string {
	m := map[string]string{}
	for _, k := range []string{"app", "tier", "zone"} {
		if w.IntN(2) == 0 {
			m[k] = pick(w, "x", "y", "z")
		}
	}
	return m
}

func (w world) namespace() *corev1.Namespace {
	ns := newNamespace(pick(w, worldNamespaces...), "")
	ns.Labels = w.labels()
	return ns
}

func (w world) nad() metav1.Object {
	return newNAD(pick(w, worldNetworks[:3]...), pick(w, "macvlan", "other"))
}

func (w world) pod() *corev1.Pod {
	var attachments []string
	for _, iface := range []string{"eth0", "net1", "net2"} {
		for range w.IntN(3) {
			a := iface + " " + pick(w, worldNetworks...)
			for range w.IntN(3) {
				a += " " + pick(w, worldAddrs...)
			}
			attachments = append(attachments, a)
		}
	}
	p := newPod(fmt.Sprintf("%s/pod-%d", pick(w, worldNamespaces...), w.IntN(5)), "", attachments...)
	p.Labels = w.labels()
	p.Spec.NodeName = pick(w, testNode, testNode, "node-2", "")
	p.Status.Phase = pick(w, corev1.PodRunning, corev1.PodRunning, corev1.PodRunning, corev1.PodPending, corev1.PodSucceeded)
	p.Spec.HostNetwork = w.IntN(10) == 0
	p.UID = types.UID(pick(w, "1", "2"))
	if w.IntN(4) == 0 { // not attached yet
		setNetworks(p, pick(w, worldNetworks...)+","+pick(w, worldNetworks...)+pick(w, "", "@eth0"))
	}
	return withPorts(p, pick(w, "http=80/TCP", "http=8080/TCP", "http=53/UDP"), pick(w, "http=81/TCP", "dns=53/UDP"))
}

func (w world) selector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	for range w.IntN(3) {
		key := pick(w, "app", "tier", "zone")
		switch w.IntN(6) {
		case 0, 1:
			s.MatchLabels = map[string]string{key: pick(w, "x", "y", "z")}
		case 2:
			s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{
				Key: key, Operator: pick(w, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn), Values: []string{"x", "y"}})
		case 3, 4:
			s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{
				Key: key, Operator: pick(w, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)})
		case 5:
			if w.IntN(5) == 0 {
				s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: "Bad"})
			}
		}
	}
	return s
}

func (w world) peers() []mnpv1.MultiNetworkPolicyPeer {
	var out []mnpv1.MultiNetworkPolicyPeer
	for range w.IntN(3) {
		var p mnpv1.MultiNetworkPolicyPeer
		switch w.IntN(8) {
		case 0, 1:
			p.PodSelector = w.selector()
		case 2, 3:
			p.NamespaceSelector = w.selector()
		case 4:
			p.PodSelector, p.NamespaceSelector = w.selector(), w.selector()
		case 5, 6:
			p.IPBlock = &mnpv1.IPBlock{CIDR: pick(w, worldBlocks...)}
			for range w.IntN(3) {
				p.IPBlock.Except = append(p.IPBlock.Except, pick(w, worldBlocks...))
			}
		case 7:
			if w.IntN(2) == 0 {
				p.PodSelector, p.IPBlock = w.selector(), &mnpv1.IPBlock{CIDR: "0.0.0.0/0"}
			}
		}
		out = append(out, p)
	}
	return out
}

func (w world) ports() []mnpv1.MultiNetworkPolicyPort {
	var out []mnpv1.MultiNetworkPolicyPort
	for range w.IntN(4) {
		var p mnpv1.MultiNetworkPolicyPort
		if w.IntN(2) == 0 {
			p.Protocol = new(pick(w, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP, "ICMP"))
		}
		if w.IntN(3) > 0 {
			p.Port = new(pick(w, intstr.FromInt32(80), intstr.FromInt32(53), intstr.FromInt32(0),
				intstr.FromString("http"), intstr.FromString("dns"), intstr.FromString("none")))
			if p.Port.Type == intstr.Int && w.IntN(3) == 0 {
				p.EndPort = new(pick(w, int32(79), int32(100), int32(9000)))
			}
		}
		out = append(out, p)
	}
	return out
}

func (w world) policy() *mnpv1.MultiNetworkPolicy {
	networks := pick(w, worldNetworks...) + ", " + pick(w, worldNetworks...)
	p := newPolicy(fmt.Sprintf("%s/policy-%d", pick(w, worldNamespaces...), w.IntN(3)), networks, "{}")
	p.Spec.PodSelector = *w.selector()
	p.Spec.PolicyTypes = pick(w, nil, nil, []mnpv1.MultiPolicyType{"Ingress"}, []mnpv1.MultiPolicyType{"Egress"},
		[]mnpv1.MultiPolicyType{"Ingress", "Egress"}, []mnpv1.MultiPolicyType{"Ingress", "Bad"})
	for range w.IntN(3) {
		p.Spec.Ingress = append(p.Spec.Ingress, mnpv1.MultiNetworkPolicyIngressRule{Ports: w.ports(), From: w.peers()})
	}
	for range w.IntN(3) {
		p.Spec.Egress = append(p.Spec.Egress, mnpv1.MultiNetworkPolicyEgressRule{Ports: w.ports(), To: w.peers()})
	}
	return p
}

func (w world) object() metav1.Object {
	switch w.IntN(10) {
	case 0:
		return w.namespace()
	case 1:
		return w.nad()
	case 2, 3, 4:
		return w.policy()
	}
	return w.pod()
}

// objects is a state: objects by kind and key.
type objects map[string]metav1.Object

func (o objects) put(obj metav1.Object) { o[kindOf(obj)] = obj }

func kindOf(obj metav1.Object) string {
	return fmt.Sprintf("%T %s/%s", obj, obj.GetNamespace(), obj.GetName())
}

func (o objects) sorted() []metav1.Object {
	var out []metav1.Object
	for _, k := range slices.Sorted(maps.Keys(o)) {
		out = append(out, o[k])
	}
	return out
}

// isNAD: a definition that is gone may still be remembered, so the ways to a state do not delete any.
func isNAD(o metav1.Object) bool {
	_, is := o.(*netv1.NetworkAttachmentDefinition)
	return is
}

// tables renders the targets of all pods.
func tables(t testing.TB, c *Cache) map[string]string {
	out := map[string]string{}
	for _, ns := range worldNamespaces {
		for i := range 5 {
			key := Key{Namespace: ns, Name: fmt.Sprintf("pod-%d", i)}
			if target, ok := c.Target(key); ok {
				out[key.String()] = string(target.UID) + "\n" + render(t, target.Ruleset)
			}
		}
	}
	return out
}

// FuzzWorld plays random events. After each, every table does what policies mean, every pod whose table changed
// was reported dirty, and now and then a new cache that gets the same objects in another way has the same tables.
func FuzzWorld(f *testing.F) {
	seeds := uint64(40)
	if testing.Short() {
		seeds = 8
	}
	for seed := range seeds {
		f.Add(seed, uint8(50))
	}
	all := probes()
	f.Fuzz(func(t *testing.T, seed uint64, events uint8) {
		all := slices.Clone(all)
		w, c, state := newWorld(seed), New(testOptions()), objects{}
		before := tables(t, c)
		for i := range int(events % 64) { // a run has ten seconds
			obj := w.object()
			if old := state[kindOf(obj)]; old != nil && w.IntN(4) == 0 && !isNAD(obj) {
				delete(state, kindOf(obj))
				remove(c, obj)
			} else {
				state.put(obj)
				upsert(c, obj)
			}
			after := tables(t, c)
			checkDirty(t, c, before, after)
			before = after
			w.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			comparePackets(t, c, newOracle(state.sorted()), all[:40])
			if i%10 == 9 {
				checkWays(t, w, state, after)
			}
			if t.Failed() {
				t.Fatalf("event %d was %s", i, kindOf(obj))
			}
		}
		checkEmpty(t, c, state)
	})
}

// TestWays reaches each named state of the semantics in many ways. The packets that pass stay the same, and all tables
// do to the letter.
func TestWays(t *testing.T) {
	for _, tt := range semantics {
		t.Run(tt.name, func(t *testing.T) {
			state := append(slices.Clone(tt.objects), webPod())
			want := renderPod(t, newCluster(t, state...), "web")
			for name, way := range ways {
				for seed := range uint64(3) {
					c := New(testOptions())
					way(newWorld(seed), c, slices.Clone(state))
					if diff := cmp.Diff(want, renderPod(t, c, "web")); diff != "" {
						t.Errorf("%s, seed %d (-want +got):\n%s", name, seed, diff)
					}
					wantPackets(t, c, "web", tt.packets...)
				}
			}
		})
	}
}

// checkDirty checks that what changed was reported.
func checkDirty(t *testing.T, c *Cache, before, after map[string]string) {
	t.Helper()
	dirty := c.TakeDirty()
	if !slices.IsSortedFunc(dirty, compareKeys) {
		t.Errorf("not sorted: %v", dirty)
	}
	for _, state := range []map[string]string{before, after} {
		for key := range state {
			if before[key] != after[key] && !slices.Contains(dirty, keyOf(key)) {
				t.Errorf("%s changed and is not dirty (-before +after):\n%s", key, cmp.Diff(before[key], after[key]))
			}
		}
	}
}

// checkWays gives new caches the same objects in other ways.
func checkWays(t *testing.T, w world, state objects, want map[string]string) {
	t.Helper()
	for name, way := range ways {
		c := New(testOptions())
		way(w, c, state.sorted())
		if diff := cmp.Diff(want, tables(t, c)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// ways are ways to one state.
var ways = map[string]func(w world, c *Cache, state []metav1.Object){
	"forward": func(_ world, c *Cache, state []metav1.Object) { play(c, state) },
	"reversed": func(_ world, c *Cache, state []metav1.Object) {
		slices.Reverse(state)
		play(c, state)
	},
	"shuffled": func(w world, c *Cache, state []metav1.Object) { play(c, shuffled(w, state)) },
	"doubled": func(w world, c *Cache, state []metav1.Object) {
		play(c, shuffled(w, state))
		play(c, shuffled(w, state))
	},
	// Tables are read on the way, so that plans are made and groups active while objects come.
	"read on the way": func(w world, c *Cache, state []metav1.Object) {
		for _, o := range shuffled(w, state) {
			upsert(c, o)
			readAll(c)
		}
	},
	// All objects are others first, and change or go and come back.
	"relabeled": func(w world, c *Cache, state []metav1.Object) {
		play(c, state)
		readAll(c)
		for _, o := range shuffled(w, append(others(state), state...)) {
			upsert(c, o)
			readAll(c)
		}
		for _, o := range shuffled(w, state) {
			if w.IntN(2) == 0 && !isNAD(o) {
				remove(c, o)
				readAll(c)
			}
			upsert(c, o)
		}
		play(c, shuffled(w, state))
	},
	// There are more objects for a while, and some are others first.
	"detoured": func(w world, c *Cache, state []metav1.Object) {
		kept := objects{}
		for _, o := range state {
			kept.put(o)
		}
		for range 40 {
			o := w.object()
			if isNAD(o) {
				continue
			}
			upsert(c, o)
			readAll(c)
			if kept[kindOf(o)] == nil {
				defer remove(c, o)
			}
		}
		play(c, shuffled(w, state))
		readAll(c)
	},
}

// others returns a state of other objects with the same names.
func others(state []metav1.Object) []metav1.Object {
	var out []metav1.Object
	for _, o := range state {
		switch o := o.(type) {
		case *corev1.Pod:
			other := o.DeepCopy()
			other.Labels = map[string]string{"app": "other"}
			other.Spec.Containers = nil
			setStatus(other, "net1 one 10.0.0.77", "net7 default/net-a fd00::77", "net1 default/net-b")
			out = append(out, other)
		case *mnpv1.MultiNetworkPolicy:
			key := o.Namespace + "/" + o.Name
			out = append(out, newPolicy(key, "net-a, net-b, a/one", `{ingress: [{from: [{namespaceSelector: {}}]}], egress: [{ports: [{port: http}]}]}`))
		case *corev1.Namespace:
			out = append(out, newNamespace(o.Name, "team=other app=x"))
		}
	}
	return out
}

func play(c *Cache, state []metav1.Object) {
	for _, o := range state {
		upsert(c, o)
	}
}

func shuffled(w world, state []metav1.Object) []metav1.Object {
	state = slices.Clone(state)
	w.Shuffle(len(state), func(i, j int) { state[i], state[j] = state[j], state[i] })
	return state
}

func readAll(c *Cache) {
	for _, k := range c.TakeDirty() {
		c.Target(k)
	}
}

// checkEmpty deletes everything and checks that nothing is left.
func checkEmpty(t *testing.T, c *Cache, state objects) {
	t.Helper()
	for _, o := range state {
		remove(c, o)
	}
	left := map[string]int{
		"pods": len(c.pods), "namespaces": len(c.namespaces), "networks": len(c.networks), "policies": len(c.policies),
		"targets": len(c.targets), "scopes": len(c.scopes), "groups": len(c.groups), "ports": len(c.ports),
	}
	for what, n := range left {
		if n > 0 {
			t.Errorf("%d %s are left", n, what)
		}
	}
}
