package model

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// The names and addresses of a random world.
var (
	WorldNamespaces = []string{"a", "b", "c"}
	worldNetworks   = []string{"a/one", "a/two", "b/one", "three"}
	WorldAddrs      = []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.1", "10.1.0.1", "192.168.0.1", "fd00::1", "fd00::2", "fd01::1"}
	worldBlocks     = []string{"10.0.0.0/8", "10.0.0.0/24", "10.0.0.2/31", "0.0.0.0/0", "fd00::/16", "::/0", "10.0.0.3/32", "bad"}
)

// World makes random objects. It uses few names, labels and addresses, so that policies often select pods, and two
// objects often have the same key.
// An object may be invalid in many ways, as an API server without a schema would store it.
type World struct{ *rand.Rand }

// NewWorld returns a world. Worlds with equal seeds make equal objects.
func NewWorld(seed uint64) World { return World{rand.New(rand.NewPCG(seed, seed))} }

// Pick returns a random value of the given values.
// It panics without values.
func Pick[T any](w World, from ...T) T { return from[w.IntN(len(from))] }

// labels makes labels of the keys that selectors ask for.
// Each key is there half of the time.
func (w World) labels() map[string]string {
	m := map[string]string{}
	for _, k := range []string{"app", "tier", "zone"} {
		if w.IntN(2) == 0 {
			m[k] = Pick(w, "x", "y", "z")
		}
	}
	return m
}

// namespace makes a namespace with random labels.
func (w World) namespace() *corev1.Namespace {
	ns := NewNamespace(Pick(w, WorldNamespaces...), "")
	ns.Labels = w.labels()
	return ns
}

// nad makes a definition of an isolated or another type. The network "three" never gets a definition.
func (w World) nad() metav1.Object {
	return NewNAD(Pick(w, worldNetworks[:3]...), Pick(w, "macvlan", "other"))
}

// pod makes a pod. A UID is one of two, so a pod is sometimes another pod of the same name.
// It may be on another node or on none, have ended, or be in the host network.
func (w World) pod() *corev1.Pod {
	var attachments []string
	for _, iface := range []string{"eth0", "net1", "net2"} {
		for range w.IntN(3) {
			a := iface + " " + Pick(w, worldNetworks...)
			for range w.IntN(3) {
				a += " " + Pick(w, WorldAddrs...)
			}
			attachments = append(attachments, a)
		}
	}
	p := NewPod(fmt.Sprintf("%s/pod-%d", Pick(w, WorldNamespaces...), w.IntN(5)), "", attachments...)
	p.Labels = w.labels()
	p.Spec.NodeName = Pick(w, Node, Node, "node-2", "")
	p.Status.Phase = Pick(w, corev1.PodRunning, corev1.PodRunning, corev1.PodRunning, corev1.PodPending, corev1.PodSucceeded)
	p.Spec.HostNetwork = w.IntN(10) == 0
	p.UID = types.UID(Pick(w, "1", "2"))
	if w.IntN(4) == 0 { // requested, but not attached yet
		SetNetworks(p, Pick(w, worldNetworks...)+","+Pick(w, worldNetworks...)+Pick(w, "", "@eth0"))
	}
	return WithPorts(p, Pick(w, "http=80/TCP", "http=8080/TCP", "http=53/UDP"), Pick(w, "http=81/TCP", "dns=53/UDP"))
}

// selector makes a selector with up to two parts; a few are not valid.
// An empty selector is as likely as any other, and selects everything.
func (w World) selector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	for range w.IntN(3) {
		key := Pick(w, "app", "tier", "zone")
		switch w.IntN(6) {
		case 0, 1:
			s.MatchLabels = map[string]string{key: Pick(w, "x", "y", "z")}
		case 2:
			s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{
				Key: key, Operator: Pick(w, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn), Values: []string{"x", "y"}})
		case 3, 4:
			s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{
				Key: key, Operator: Pick(w, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)})
		case 5:
			if w.IntN(5) == 0 {
				s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: "Bad"})
			}
		}
	}
	return s
}

// peers makes the peers of a rule. Some blocks are not valid, and some peers have a block and a selector, which is not
// valid either.
func (w World) peers() []mnpv1.MultiNetworkPolicyPeer {
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
			p.IPBlock = &mnpv1.IPBlock{CIDR: Pick(w, worldBlocks...)}
			for range w.IntN(3) {
				p.IPBlock.Except = append(p.IPBlock.Except, Pick(w, worldBlocks...))
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

// ports makes the ports of a rule. Some protocols, numbers and ranges are not valid.
// A list without ports allows every port.
func (w World) ports() []mnpv1.MultiNetworkPolicyPort {
	var out []mnpv1.MultiNetworkPolicyPort
	for range w.IntN(4) {
		var p mnpv1.MultiNetworkPolicyPort
		if w.IntN(2) == 0 {
			p.Protocol = new(Pick(w, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP, "ICMP"))
		}
		if w.IntN(3) > 0 {
			p.Port = new(Pick(w, intstr.FromInt32(80), intstr.FromInt32(53), intstr.FromInt32(0),
				intstr.FromString("http"), intstr.FromString("dns"), intstr.FromString("none")))
			if p.Port.Type == intstr.Int && w.IntN(3) == 0 {
				p.EndPort = new(Pick(w, int32(79), int32(100), int32(9000)))
			}
		}
		out = append(out, p)
	}
	return out
}

// policy makes a policy for two networks, which may be the same network.
func (w World) policy() *mnpv1.MultiNetworkPolicy {
	networks := Pick(w, worldNetworks...) + ", " + Pick(w, worldNetworks...)
	p := NewPolicy(fmt.Sprintf("%s/policy-%d", Pick(w, WorldNamespaces...), w.IntN(3)), networks, "{}")
	p.Spec.PodSelector = *w.selector()
	p.Spec.PolicyTypes = Pick(w, nil, nil, []mnpv1.MultiPolicyType{"Ingress"}, []mnpv1.MultiPolicyType{"Egress"},
		[]mnpv1.MultiPolicyType{"Ingress", "Egress"}, []mnpv1.MultiPolicyType{"Ingress", "Bad"})
	for range w.IntN(3) {
		p.Spec.Ingress = append(p.Spec.Ingress, mnpv1.MultiNetworkPolicyIngressRule{Ports: w.ports(), From: w.peers()})
	}
	for range w.IntN(3) {
		p.Spec.Egress = append(p.Spec.Egress, mnpv1.MultiNetworkPolicyEgressRule{Ports: w.ports(), To: w.peers()})
	}
	return p
}

// Object returns a random object. Most of the objects are pods, then policies.
// An object may replace an earlier object of the same key.
func (w World) Object() metav1.Object {
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

// Objects is a state of a cluster: its objects by [KindOf], as an API server would have them.
type Objects map[string]metav1.Object

// Put adds an object, or replaces the object of the same kind and name.
func (o Objects) Put(obj metav1.Object) { o[KindOf(obj)] = obj }

// KindOf returns kind, namespace and name of an object as a text.
// It is unique among the objects of a cluster.
func KindOf(obj metav1.Object) string {
	return fmt.Sprintf("%T %s/%s", obj, obj.GetNamespace(), obj.GetName())
}

// Sorted returns the objects, sorted by kind, namespace and name.
// The order is the same in each run.
func (o Objects) Sorted() []metav1.Object {
	var out []metav1.Object
	for _, k := range slices.Sorted(maps.Keys(o)) {
		out = append(out, o[k])
	}
	return out
}

// Others returns objects with the same names and other contents: a cache that goes through them must forget everything
// of the first objects.
func Others(state []metav1.Object) []metav1.Object {
	var out []metav1.Object
	for _, o := range state {
		switch o := o.(type) {
		case *corev1.Pod:
			other := o.DeepCopy()
			other.Labels = map[string]string{"app": "other"}
			other.Spec.Containers = nil
			SetStatus(other, "net1 one 10.0.0.77", "net7 default/net-a fd00::77", "net1 default/net-b")
			out = append(out, other)
		case *mnpv1.MultiNetworkPolicy:
			key := o.Namespace + "/" + o.Name
			out = append(out, NewPolicy(key, "net-a, net-b, a/one", `{ingress: [{from: [{namespaceSelector: {}}]}], egress: [{ports: [{port: http}]}]}`))
		case *corev1.Namespace:
			out = append(out, NewNamespace(o.Name, "team=other app=x"))
		}
	}
	return out
}

// Shuffled returns the objects in a random order.
// The given slice stays as it is.
func Shuffled(w World, state []metav1.Object) []metav1.Object {
	state = slices.Clone(state)
	w.Shuffle(len(state), func(i, j int) { state[i], state[j] = state[j], state[i] })
	return state
}
