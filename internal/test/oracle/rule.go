package oracle

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// policyRule is an ingress or egress rule: the API has two types for the same parts.
type policyRule struct {
	peers []mnpv1.MultiNetworkPolicyPeer
	ports []mnpv1.MultiNetworkPolicyPort
}

// rulesOf returns the rules of a policy for a direction.
func rulesOf(policy *mnpv1.MultiNetworkPolicy, d Direction) []policyRule {
	var out []policyRule
	if d == Ingress {
		for _, r := range policy.Spec.Ingress {
			out = append(out, policyRule{r.From, r.Ports})
		}
		return out
	}
	for _, r := range policy.Spec.Egress {
		out = append(out, policyRule{r.To, r.Ports})
	}
	return out
}

// ruleFor returns the ports that a rule allows the peer of a question.
// self is the pod that the policy protects.
func (o *Oracle) ruleFor(q question, policy *mnpv1.MultiNetworkPolicy, self *corev1.Pod, r policyRule) ruleFor {
	isPeer := len(r.peers) == 0
	var pods []*corev1.Pod // peers that have the address
	for _, peer := range r.peers {
		if peer.IPBlock != nil {
			isPeer = isPeer || peer.PodSelector == nil && peer.NamespaceSelector == nil && inBlock(peer.IPBlock, q.peer)
			continue
		}
		pods = append(pods, o.podsAt(policy, peer, q.peer)...)
	}
	isPeer = isPeer || len(pods) > 0
	// A rule without peers allows everyone. With egress and a named port, the pods that have the address say which
	// number the name means.
	if len(r.peers) == 0 { // everyone: any pod may name a port
		pods = o.podsAt(policy, mnpv1.MultiNetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{}}, q.peer)
	}
	out := ruleFor{all: isPeer && len(r.ports) == 0}
	for _, port := range r.ports {
		// For ingress the protected pod gives a named port its number; for egress each selected peer does.
		switch {
		case port.Port == nil || isNumber(port.Port):
			if isPeer {
				out.ports = append(out.ports, numbersOf(port)...)
			}
		case q.direction == Ingress && isPeer:
			out.ports = append(out.ports, portsNamed(self, port)...)
		case q.direction == Egress:
			for _, pod := range pods {
				out.ports = append(out.ports, portsNamed(pod, port)...)
			}
		}
	}
	return out
}

// podsAt returns the pods that a peer selects and that have the address on any of the policy's networks.
func (o *Oracle) podsAt(policy *mnpv1.MultiNetworkPolicy, peer mnpv1.MultiNetworkPolicyPeer, at netip.Addr) []*corev1.Pod {
	var out []*corev1.Pod
	if peer.PodSelector == nil && peer.NamespaceSelector == nil {
		return nil
	}
	for _, pod := range ObjectsOf[*corev1.Pod](o.state) {
		if IsOutside(pod) || pod.Spec.NodeName == "" || !o.inNamespace(policy, peer, pod) {
			continue
		}
		if s := peer.PodSelector; s != nil {
			if matches, valid := selects(*s, pod.Labels); !matches || !valid {
				continue
			}
		}
		for _, a := range o.attachments[pod.UID] {
			if slices.Contains(networksOf(policy), a.network) && slices.Contains(a.addrs, at) {
				out = append(out, pod)
				break
			}
		}
	}
	return out
}

// inNamespace reports whether a peer selects a pod's namespace. If the labels of the namespace are unknown, only the
// empty selector selects it.
func (o *Oracle) inNamespace(policy *mnpv1.MultiNetworkPolicy, peer mnpv1.MultiNetworkPolicyPeer, pod *corev1.Pod) bool {
	s := peer.NamespaceSelector
	if s == nil {
		return pod.Namespace == policy.Namespace
	}
	if len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 0 {
		return true
	}
	ns := o.state.namespace(pod.Namespace)
	if ns == nil {
		return false
	}
	matches, valid := selects(*s, ns.Labels)
	return matches && valid
}

// selects reports whether a selector matches labels, and whether the selector is valid. It does not use the API
// machinery's selectors, because the agent uses them.
func selects(s metav1.LabelSelector, labels map[string]string) (matches, valid bool) {
	matches = true
	for k, v := range s.MatchLabels {
		if !isKey(k) || !isValue(v) {
			return false, false
		}
		if have, ok := labels[k]; !ok || have != v {
			matches = false
		}
	}
	for _, e := range s.MatchExpressions {
		have, ok := labels[e.Key]
		if !isKey(e.Key) || slices.ContainsFunc(e.Values, func(v string) bool { return !isValue(v) }) {
			return false, false
		}
		var match bool
		needsValues := true
		switch e.Operator {
		case metav1.LabelSelectorOpIn:
			match = ok && slices.Contains(e.Values, have)
		case metav1.LabelSelectorOpNotIn:
			match = !ok || !slices.Contains(e.Values, have)
		case metav1.LabelSelectorOpExists:
			match, needsValues = ok, false
		case metav1.LabelSelectorOpDoesNotExist:
			match, needsValues = !ok, false
		default:
			return false, false
		}
		// In and NotIn need values, Exists and DoesNotExist must have none.
		if needsValues != (len(e.Values) > 0) {
			return false, false
		}
		matches = matches && match
	}
	return matches, true
}

// isKey and isValue are the API server's checks of label keys and values.
func isKey(s string) bool   { return len(validation.IsQualifiedName(s)) == 0 }
func isValue(s string) bool { return len(validation.IsValidLabelValue(s)) == 0 }

// inBlock reports whether a block contains an address. A block with any part that cannot be read contains nothing.
func inBlock(b *mnpv1.IPBlock, a netip.Addr) bool {
	in, ok := blockHas(b.CIDR, a)
	for _, s := range b.Except {
		out, valid := blockHas(s, a)
		ok = ok && valid
		in = in && !out
	}
	return in && ok
}

// blockHas reports whether a CIDR contains an address, and whether the CIDR can be read.
func blockHas(cidr string, a netip.Addr) (has, valid bool) {
	p, err := netip.ParsePrefix(cidr)
	if err != nil {
		return false, false
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 { // another way to write IPv4
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Contains(a), true
}

// isNumber reports whether a port is a number, maybe a number in a string.
// Such a port has no name to look up.
func isNumber(port *intstr.IntOrString) bool {
	_, err := strconv.Atoi(strings.TrimSpace(port.StrVal))
	return port.Type == intstr.Int || err == nil
}

// protocolOf returns the protocol of a port; nil means TCP. The result is false for an unknown protocol. Upper and
// lower case are equal.
func protocolOf(p *corev1.Protocol) (Protocol, bool) {
	if p == nil {
		return TCP, true
	}
	switch corev1.Protocol(strings.ToUpper(strings.TrimSpace(string(*p)))) {
	case corev1.ProtocolTCP:
		return TCP, true
	case corev1.ProtocolUDP:
		return UDP, true
	case corev1.ProtocolSCTP:
		return SCTP, true
	}
	return 0, false
}

// numbersOf returns the ports that a port without a name allows. If any part of it is not valid, it allows nothing.
// Port 0 to 65535 stands for a port without a number.
func numbersOf(port mnpv1.MultiNetworkPolicyPort) []portRange {
	proto, ok := protocolOf(port.Protocol)
	r := portRange{proto, 0, 65535}
	switch {
	case !ok:
		return nil
	case port.Port == nil && port.EndPort != nil:
		return nil
	case port.Port == nil:
		return []portRange{r}
	}
	r.from = port.Port.IntValue()
	if port.Port.Type == intstr.String {
		r.from, _ = strconv.Atoi(strings.TrimSpace(port.Port.StrVal)) //nolint:errcheck // isNumber
	}
	r.to = r.from
	if port.EndPort != nil {
		r.to = int(*port.EndPort)
	}
	if r.from < 1 || r.to > 65535 || r.to < r.from {
		return nil
	}
	return []portRange{r}
}

// portsNamed returns the numbers that a pod's containers give a named port.
// A name that no container has gives nothing.
func portsNamed(pod *corev1.Pod, port mnpv1.MultiNetworkPolicyPort) []portRange {
	proto, ok := protocolOf(port.Protocol)
	name := port.Port.StrVal
	if !ok || port.EndPort != nil || len(validation.IsValidPortName(name)) > 0 {
		return nil
	}
	containers := slices.Clone(pod.Spec.Containers)
	// A sidecar (an init container that restarts always) runs as long as the pod. Other init containers have ended when
	// the pod receives packets.
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			containers = append(containers, c) // runs as long as the pod
		}
	}
	var out []portRange
	for _, c := range containers {
		for _, p := range c.Ports {
			of := &p.Protocol
			if *of == "" {
				of = nil
			}
			if has, ok := protocolOf(of); ok && p.Name == name && has == proto {
				out = append(out, portRange{proto, int(p.ContainerPort), int(p.ContainerPort)})
			}
		}
	}
	return out
}
