package conformance

import (
	"fmt"
	"strings"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// invalid is how many of 100 fields are not valid.
const invalid = 4

// policy makes a random policy. It has one of a few names, so it may replace another policy.
func (g *generator) policy() *mnpv1.MultiNetworkPolicy {
	key := one(g, oracle.Key{Namespace: "a", Name: longName + "a"}, oracle.Key{Namespace: "a", Name: longName + "b"}, oracle.Key{Namespace: "a", Name: "b-c"}, oracle.Key{Namespace: "b", Name: "p"},
		oracle.Key{Namespace: "b", Name: "c-a"}, oracle.Key{Namespace: "c", Name: "p"}, oracle.Key{Namespace: "c", Name: "a-b"})
	p := &mnpv1.MultiNetworkPolicy{ObjectMeta: metav1.ObjectMeta{
		Namespace: key.Namespace, Name: key.Name, UID: types.UID(key.String()),
	}}
	// A policy without the annotation applies to no network.
	if !g.chance(2) {
		p.Annotations = map[string]string{policyForAnnotation: g.policyFor(key.Namespace)}
	}
	if mode := []string{"audit", "audit", "audit", "enforce", "Audit"}[g.modes.IntN(5)]; p.Annotations != nil && g.modes.IntN(100) < 10 {
		p.Annotations[modeAnnotation] = mode
	}
	if g.chance(70) {
		p.Spec.PodSelector = *g.selector()
	}
	for range g.IntN(4) {
		p.Spec.Ingress = append(p.Spec.Ingress, mnpv1.MultiNetworkPolicyIngressRule{From: g.peers(), Ports: g.ports()})
	}
	for range g.IntN(3) {
		p.Spec.Egress = append(p.Spec.Egress, mnpv1.MultiNetworkPolicyEgressRule{To: g.peers(), Ports: g.ports()})
	}
	// Without policy types, the types follow from the rules; an empty list, a type twice and an unknown type are
	// borders of that rule.
	in, out := mnpv1.PolicyTypeIngress, mnpv1.PolicyTypeEgress
	p.Spec.PolicyTypes = one(g, nil, nil, []mnpv1.MultiPolicyType{}, []mnpv1.MultiPolicyType{in},
		[]mnpv1.MultiPolicyType{out}, []mnpv1.MultiPolicyType{in, out}, []mnpv1.MultiPolicyType{out, in, out})
	if g.chance(invalid) {
		p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, one(g, mnpv1.MultiPolicyType("ingress"), "", "Both"))
	}
	return p
}

// policyFor makes the annotation policy-for: networks with or without a namespace, with blanks, and sometimes names
// that are not valid.
// Blanks around a name do not matter.
func (g *generator) policyFor(namespace string) string {
	var names []string
	for range one(g, 2, 2, 3, 4) {
		n := one(g, someNetworks...)
		if g.chance(5) {
			n = clusterNetwork
		}
		name := n.String()
		if n.Namespace == namespace && g.chance(60) {
			name = n.Name
		}
		if g.chance(invalid) {
			name = one(g, "", "a/", "/one", "a/b/c", "one@net1", "a b", "nothing", "a/nothing")
		}
		names = append(names, one(g, "", "", " ")+name+one(g, "", "", " "))
	}
	return strings.Join(names, ",")
}

// selector makes a label selector. Half of them are empty and select everything; a few are not valid.
func (g *generator) selector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	for range one(g, 0, 0, 0, 0, 1, 1, 1, 2) {
		if g.chance(50) {
			s.MatchLabels = map[string]string{one(g, someKeys...): one(g, someValues...)}
			continue
		}
		r := metav1.LabelSelectorRequirement{Key: one(g, someKeys...), Operator: one(g, metav1.LabelSelectorOpIn,
			metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)}
		if r.Operator == metav1.LabelSelectorOpIn || r.Operator == metav1.LabelSelectorOpNotIn {
			for range 1 + g.IntN(2) {
				r.Values = append(r.Values, one(g, someValues...))
			}
		}
		s.MatchExpressions = append(s.MatchExpressions, r)
	}
	if g.chance(2) {
		switch g.IntN(4) {
		case 0:
			s.MatchLabels = map[string]string{"not a key": "x"}
		case 1:
			s.MatchLabels = map[string]string{"app": "not a value!"}
		case 2:
			s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: "app", Operator: "Like", Values: []string{"x"}})
		case 3:
			s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{
				Key: "app", Operator: one(g, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn)})
		}
	}
	return s
}

// peers makes the peers of a rule: selectors, blocks, or none. Nil and an empty list mean the same, so both occur.
func (g *generator) peers() []mnpv1.MultiNetworkPolicyPeer {
	peers := one(g, nil, []mnpv1.MultiNetworkPolicyPeer{})
	for range one(g, 0, 1, 1, 1, 1, 2, 2, 3) {
		var p mnpv1.MultiNetworkPolicyPeer
		switch g.IntN(8) {
		case 0, 1:
			p.PodSelector = g.selector()
		case 2, 3:
			p.NamespaceSelector = g.selector()
		case 4:
			p.PodSelector, p.NamespaceSelector = g.selector(), g.selector()
		default:
			p.IPBlock = g.block()
		}
		if g.chance(invalid) {
			p = one(g, mnpv1.MultiNetworkPolicyPeer{}, mnpv1.MultiNetworkPolicyPeer{IPBlock: g.block(), PodSelector: g.selector()})
		}
		peers = append(peers, p)
	}
	return peers
}

// block makes an IP block on a wire of the case. The edges of blocks and exceptions lie between the addresses of
// [someAddrs].
// A block may have no exception, or exceptions outside of it.
func (g *generator) block() *mnpv1.IPBlock {
	wire := g.IntN(len(g.wires))
	v4, v6 := fmt.Sprintf("10.%d.", wire), fmt.Sprintf("fd00:%d::", wire)
	b := &mnpv1.IPBlock{}
	if g.chance(60) {
		b.CIDR = one(g, v4+"0.0/16", v4+"0.0/24", v4+"1.0/24", v4+"0.2/31", v4+"0.1/32", v4+"1.77/23", "10.0.0.0/8", "0.0.0.0/0",
			v4+"128.0/17", "::ffff:"+v4+"0.0/112")
		for range one(g, 0, 0, 0, 1, 1, 2) {
			b.Except = append(b.Except, one(g, v4+"0.0/24", v4+"0.2/32", v4+"0.2/31", v4+"1.0/30", v4+"1.255/32", v4+"0.0/16", "fd00::/16"))
		}
	} else {
		b.CIDR = one(g, v6+"/64", v6+"/112", v6+"1:0/112", v6+"2/127", v6+"1/128", "fd00::/16", "::/0", v6+"8000:0/97")
		for range one(g, 0, 0, 0, 1, 1, 2) {
			b.Except = append(b.Except, one(g, v6+"/112", v6+"2/128", v6+"2/127", v6+"1:ffff/128", v6+"/64", "10.0.0.0/8"))
		}
	}
	bad := []string{"", "10.0.0.0", "10.0.0.0/33", "300.0.0.0/8", "fd00::/129", "any"}
	if g.chance(invalid) {
		b.CIDR = one(g, bad...)
	}
	if g.chance(invalid) {
		b.Except = append(b.Except, one(g, bad...))
	}
	return b
}

// ports makes the ports of a rule.
// None means every port.
func (g *generator) ports() []mnpv1.MultiNetworkPolicyPort {
	ports := one(g, nil, []mnpv1.MultiNetworkPolicyPort{})
	for range one(g, 0, 0, 1, 1, 1, 2, 2, 3, 5) {
		ports = append(ports, g.port())
	}
	return ports
}

// port makes a port by number, by name, as a range, or without a number. Some of them are not valid.
func (g *generator) port() mnpv1.MultiNetworkPolicyPort {
	var p mnpv1.MultiNetworkPolicyPort
	if g.chance(75) {
		proto := one(g, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
		if g.chance(invalid) {
			proto = one(g, corev1.Protocol("tcp"), "ICMP", "")
		}
		p.Protocol = &proto
	}
	number := intstr.FromInt32(int32(one(g, somePorts...)))
	switch g.IntN(10) {
	case 0, 1:
		return p
	case 2, 3, 4:
		name := intstr.FromString(one(g, "http", "http", "dns", "none"))
		p.Port = &name
	case 5, 6:
		p.Port = &number
		end := min(number.IntVal+one[int32](g, 0, 1, 28, 300, 8000, 65535), 65535)
		p.EndPort = &end
	default:
		p.Port = &number
	}
	if g.chance(invalid) {
		bad := one(g, intstr.FromInt32(0), intstr.FromInt32(-1), intstr.FromInt32(65536), intstr.FromString(""),
			intstr.FromString("80"), intstr.FromString("Not_A_Name"))
		p.Port = &bad
	}
	if g.chance(invalid) {
		end := one[int32](g, 0, -1, 79, 65536)
		p.EndPort = &end
	}
	return p
}
