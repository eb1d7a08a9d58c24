package model

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// Oracle judges packets directly from the objects of the API. It looks at all objects for each packet, which is slow, and shares
// no code with the cache.
type Oracle struct {
	// The pods by key. A test may look up the pod that a packet belongs to.
	Pods       map[Key]*corev1.Pod
	namespaces map[string]*corev1.Namespace
	policies   map[Key]*mnpv1.MultiNetworkPolicy
	nads       map[Key]*netv1.NetworkAttachmentDefinition
}

// NewOracle returns an oracle for the objects, which it does not copy.
func NewOracle(objects []metav1.Object) *Oracle {
	// An object that comes again under the same key replaces the earlier object.
	o := &Oracle{map[Key]*corev1.Pod{}, map[string]*corev1.Namespace{}, map[Key]*mnpv1.MultiNetworkPolicy{},
		map[Key]*netv1.NetworkAttachmentDefinition{}}
	for _, obj := range objects {
		key := Key{Namespace: obj.GetNamespace(), Name: obj.GetName()}
		switch obj := obj.(type) {
		case *corev1.Pod:
			o.Pods[key] = obj
		case *corev1.Namespace:
			o.namespaces[key.Name] = obj
		case *mnpv1.MultiNetworkPolicy:
			o.policies[key] = obj
		case *netv1.NetworkAttachmentDefinition:
			o.nads[key] = obj
		}
	}
	return o
}

// Passes reports whether a packet to or from a pod passes: no policy isolates the interface, or a policy allows the packet.
func (o *Oracle) Passes(pod *corev1.Pod, p Packet) bool {
	isolated := false
	for _, policy := range o.policies {
		if policy.Namespace != pod.Namespace || !selects(&policy.Spec.PodSelector, pod.Labels, true) ||
			!o.isolates(policy, pod, p) {
			continue
		}
		isolated = true
		// One policy that allows the packet is enough: policies add up.
		if o.allows(policy, pod, p) {
			return true
		}
	}
	return !isolated
}

// isolates reports whether a policy that selects the pod isolates the packet's interface in the packet's direction.
// The interface must be on a network of the policy, and the network's type must be enforced.
func (o *Oracle) isolates(policy *mnpv1.MultiNetworkPolicy, pod *corev1.Pod, p Packet) bool {
	// Without policy types, a policy is for ingress, and for egress if it has egress rules.
	isolates := p.Direction == engine.Ingress || len(policy.Spec.Egress) > 0
	if types := policy.Spec.PolicyTypes; len(types) > 0 {
		isolates = slices.ContainsFunc(types, func(t mnpv1.MultiPolicyType) bool {
			// An unknown type may mean either direction, so it isolates both.
			known := t == mnpv1.PolicyTypeIngress || t == mnpv1.PolicyTypeEgress
			return !known || strings.EqualFold(string(t), p.Direction.String())
		})
	}
	if !isolates {
		return false
	}
	for _, s := range statuses(pod) {
		network := keyIn(pod.Namespace, s.Name)
		if s.Interface != p.Iface || !slices.Contains(networksOf(policy), network) {
			continue
		}
		// A network without a definition is isolated: its type is unknown. Random definitions are of the type "macvlan"
		// or of a type that policies do not isolate.
		if nad := o.nads[network]; nad == nil || strings.Contains(nad.Spec.Config, "macvlan") {
			return true
		}
	}
	return false
}

// allows reports whether a rule of the policy allows the packet.
// A packet is allowed if both a peer and a port of the same rule match. Missing peers or ports match everything.
func (o *Oracle) allows(policy *mnpv1.MultiNetworkPolicy, pod *corev1.Pod, p Packet) bool {
	for _, r := range rulesOf(&policy.Spec, p.Direction) {
		var peers []*corev1.Pod
		for _, peer := range r.peers {
			peers = append(peers, o.peersOf(policy, peer)...)
		}
		// A rule without peers allows everybody. Its named egress ports are the ports of any pod with the address.
		if len(r.peers) == 0 {
			peers = o.peersOf(policy, mnpv1.MultiNetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{}})
		}
		peers = slices.DeleteFunc(peers, func(peer *corev1.Pod) bool { return !slices.Contains(addrsOn(policy, peer), p.Peer) })
		inBlock := slices.ContainsFunc(r.peers, func(peer mnpv1.MultiNetworkPolicyPeer) bool {
			return peer.PodSelector == nil && peer.NamespaceSelector == nil && inBlock(peer.IPBlock, p.Peer)
		})
		anybody := len(r.peers) == 0 || len(peers) > 0 || inBlock
		if len(r.ports) == 0 && anybody {
			return true
		}
		for _, port := range r.ports {
			// For ingress the pod itself gives the name a number, for egress each peer does.
			if port.Port != nil && port.Port.Type == intstr.String {
				has := func(pod *corev1.Pod) bool { return hasPort(pod, port, p) }
				if p.Direction == engine.Ingress && anybody && has(pod) || p.Direction == engine.Egress && slices.ContainsFunc(peers, has) {
					return true
				}
			} else if anybody && inRange(port, p) {
				return true
			}
		}
	}
	return false
}

// rule is a rule of either direction.
// peers are those of the field from or to.
type rule struct {
	ports []mnpv1.MultiNetworkPolicyPort
	peers []mnpv1.MultiNetworkPolicyPeer
}

// rulesOf returns the rules of a direction, in a common form.
func rulesOf(spec *mnpv1.MultiNetworkPolicySpec, d engine.Direction) []rule {
	var out []rule
	if d == engine.Ingress {
		for _, r := range spec.Ingress {
			out = append(out, rule{r.Ports, r.From})
		}
		return out
	}
	for _, r := range spec.Egress {
		out = append(out, rule{r.Ports, r.To})
	}
	return out
}

// peersOf returns the pods that a peer selects.
// A peer with a block, or without anything, selects no pods. Without a namespaceSelector, the pods are in the
// policy's namespace. Pods of the host network, pods that have ended, and pods without a node are nobody's peers.
func (o *Oracle) peersOf(policy *mnpv1.MultiNetworkPolicy, peer mnpv1.MultiNetworkPolicyPeer) []*corev1.Pod {
	var out []*corev1.Pod
	if peer.IPBlock != nil || peer.PodSelector == nil && peer.NamespaceSelector == nil {
		return nil
	}
	for _, pod := range o.Pods {
		if pod.Spec.HostNetwork || pod.Status.Phase == corev1.PodSucceeded || pod.Spec.NodeName == "" {
			continue
		}
		if peer.NamespaceSelector == nil && pod.Namespace != policy.Namespace {
			continue
		}
		if s := peer.NamespaceSelector; s != nil {
			ns := o.namespaces[pod.Namespace]
			// Only the empty selector selects a namespace whose labels are unknown.
			all := len(s.MatchLabels)+len(s.MatchExpressions) == 0
			if !all && (ns == nil || !selects(s, ns.Labels, false)) {
				continue
			}
		}
		if peer.PodSelector == nil || selects(peer.PodSelector, pod.Labels, false) {
			out = append(out, pod)
		}
	}
	return out
}

// selects reports whether a selector matches labels. For an invalid selector it returns whenInvalid.
// A target selector that is invalid selects every pod, which isolates; an invalid peer selects nobody, which denies.
func selects(s *metav1.LabelSelector, l map[string]string, whenInvalid bool) bool {
	match, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return whenInvalid
	}
	return match.Matches(labels.Set(l))
}

// statuses returns the interfaces of a pod: the interfaces of its network status and the requested interfaces.
// A requested interface has no addresses.
func statuses(pod *corev1.Pod) []netv1.NetworkStatus {
	var out []netv1.NetworkStatus
	if raw := pod.Annotations[statusAnnotation]; raw != "" {
		if err := json.Unmarshal([]byte(raw), &out); err != nil {
			panic(err)
		}
	}
	// The requested networks of a random pod are in the short form; Multus names their interfaces net1, net2 and so on.
	if raw := pod.Annotations[networksAnnotation]; raw != "" {
		for i, s := range strings.Split(raw, ",") {
			name, iface, found := strings.Cut(s, "@")
			if !found {
				iface = fmt.Sprint("net", i+1)
			}
			out = append(out, netv1.NetworkStatus{Name: name, Interface: iface})
		}
	}
	return out
}

// keyIn reads "namespace/name", or "name" in a namespace.
// It is the form of networks in annotations.
func keyIn(namespace, name string) Key {
	if before, after, ok := strings.Cut(name, "/"); ok {
		return Key{Namespace: before, Name: after}
	}
	return Key{Namespace: namespace, Name: name}
}

// networksOf returns the networks of the annotation policy-for.
func networksOf(policy *mnpv1.MultiNetworkPolicy) []Key {
	var out []Key
	for _, s := range strings.Split(policy.Annotations[policyForAnnotation], ",") {
		out = append(out, keyIn(policy.Namespace, strings.TrimSpace(s)))
	}
	return out
}

// addrsOn returns the addresses of a pod on the networks of a policy.
// Only these make the pod a peer of the policy.
func addrsOn(policy *mnpv1.MultiNetworkPolicy, pod *corev1.Pod) []netip.Addr {
	var out []netip.Addr
	for _, s := range statuses(pod) {
		if !slices.Contains(networksOf(policy), keyIn(pod.Namespace, s.Name)) {
			continue
		}
		for _, ip := range s.IPs {
			if a, err := netip.ParseAddr(ip); err == nil {
				out = append(out, a)
			}
		}
	}
	return out
}

// inBlock reports whether a block contains an address. A block with a part that is not valid contains nothing.
// An except outside of the block takes nothing away.
func inBlock(b *mnpv1.IPBlock, a netip.Addr) bool {
	if b == nil {
		return false
	}
	cidr, err := prefixOf(b.CIDR)
	if err != nil || !cidr.Contains(a) {
		return false
	}
	for _, s := range b.Except {
		if except, err := prefixOf(s); err != nil || except.Contains(a) {
			return false
		}
	}
	return true
}

// prefixOf parses a CIDR. It reads ::ffff:10.0.0.0/104 as 10.0.0.0/8.
func prefixOf(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err == nil && p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, err
}

// protocolOf returns the IP protocol number of a port: TCP if there is no protocol, 0 if the protocol is unknown.
// Number 0 matches no packet, so a rule with an unknown protocol allows nothing.
func protocolOf(port mnpv1.MultiNetworkPolicyPort) uint8 {
	if port.Protocol == nil {
		return 6
	}
	return map[corev1.Protocol]uint8{"TCP": 6, "UDP": 17, "SCTP": 132}[*port.Protocol]
}

// hasPort reports whether the packet's port is a port of the pod with the name in the rule.
// Protocol and number must both be those of the packet.
func hasPort(pod *corev1.Pod, port mnpv1.MultiNetworkPolicyPort, p Packet) bool {
	if port.EndPort != nil { // a named port has no range
		return false
	}
	// Init containers are missing here: random pods have none.
	for _, c := range pod.Spec.Containers {
		for _, cp := range c.Ports {
			proto := cp.Protocol
			same := protocolOf(mnpv1.MultiNetworkPolicyPort{Protocol: &proto}) == protocolOf(port)
			if same && protocolOf(port) == p.Proto && cp.Name == port.Port.StrVal && uint16(cp.ContainerPort) == p.Port {
				return true
			}
		}
	}
	return false
}

// inRange reports whether the packet's port is in the range of the rule's port.
// A port without a number is every port of the protocol; with an endPort it is invalid and allows nothing.
func inRange(port mnpv1.MultiNetworkPolicyPort, p Packet) bool {
	if protocolOf(port) != p.Proto {
		return false
	}
	if port.Port == nil {
		return port.EndPort == nil
	}
	from := port.Port.IntVal
	to := from
	if port.EndPort != nil {
		to = *port.EndPort
	}
	return from > 0 && from <= int32(p.Port) && int32(p.Port) <= to
}

// Probes returns packets for which the policies of a random world may have different verdicts. The addresses are those
// of the world's pods.
func Probes() []Packet {
	var out []Packet
	for _, d := range []string{"ingress", "egress"} {
		for _, iface := range []string{"net1", "net2", "eth0"} {
			for _, ip := range WorldAddrs {
				for _, port := range []string{"tcp 80", "tcp 81", "udp 53", "sctp 9", "tcp 8080", "icmp"} {
					out = append(out, NewPacket(strings.Join([]string{d, iface, ip, port}, " ")))
				}
			}
		}
	}
	return out
}
