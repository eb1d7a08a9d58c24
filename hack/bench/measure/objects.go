package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// node is the name of the node of the local pods.
const node = "node-1"

// networkName returns the network of interface number i, from 1.
func networkName(i int) string { return fmt.Sprintf("net-%d", i) }

// The plugin type is in the agent's --network-plugins, so that the agent enforces policies on the network.
func newNetwork(i int) *netv1.NetworkAttachmentDefinition {
	return &netv1.NetworkAttachmentDefinition{
		ObjectMeta: metav1.ObjectMeta{Namespace: "local", Name: networkName(i)},
		Spec:       netv1.NetworkAttachmentDefinitionSpec{Config: `{"cniVersion": "0.3.1", "type": "macvlan"}`},
	}
}

// newNamespace returns a namespace with the label team, which the policies select by.
func newNamespace(name, team string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": team}}}
}

// newPod returns a pod with an address on each of the networks 1, 2, ….
// The pod runs, and Multus has written its network status, so its addresses count. Its UID is the same in each run.
func newPod(namespace, name, app, onNode string, addrs ...netip.Addr) *corev1.Pod {
	var status []netv1.NetworkStatus
	for i, a := range addrs {
		status = append(status, netv1.NetworkStatus{
			Name:      "local/" + networkName(i+1),
			Interface: fmt.Sprintf("net%d", i+1),
			IPs:       []string{a.String()},
		})
	}
	text, err := json.Marshal(status)
	if err != nil {
		panic(err) // strings only
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, UID: types.UID(namespace + "/" + name),
			Labels:      map[string]string{"app": app},
			Annotations: map[string]string{netv1.NetworkStatusAnnot: string(text)},
		},
		Spec:   corev1.PodSpec{NodeName: onNode},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

// podsOf returns a peer: all pods with the label app in the namespaces with the label team. An empty value matches everything.
func podsOf(team, app string) mnpv1.MultiNetworkPolicyPeer {
	return mnpv1.MultiNetworkPolicyPeer{NamespaceSelector: labeled("team", team), PodSelector: labeled("app", app)}
}

// labeled returns a selector for a label, or a selector for everything if the value is empty.
func labeled(key, value string) *metav1.LabelSelector {
	if value == "" {
		return &metav1.LabelSelector{}
	}
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

// newPort returns a single port of a policy.
func newPort(protocol corev1.Protocol, port int) mnpv1.MultiNetworkPolicyPort {
	number := intstr.FromInt32(int32(port))
	return mnpv1.MultiNetworkPolicyPort{Protocol: &protocol, Port: &number}
}

// newPolicy returns a policy that isolates all pods of the namespace local on the networks 1..networks and allows the peers to
// use the ports.
func newPolicy(name string, networks int, peers mnpv1.MultiNetworkPolicyPeer, ports ...mnpv1.MultiNetworkPolicyPort,
) *mnpv1.MultiNetworkPolicy {
	var names []string
	for i := range networks {
		names = append(names, networkName(i+1))
	}
	return &mnpv1.MultiNetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "local", Name: name,
			Annotations: map[string]string{"k8s.v1.cni.cncf.io/policy-for": strings.Join(names, ",")},
		},
		Spec: mnpv1.MultiNetworkPolicySpec{
			PolicyTypes: []mnpv1.MultiPolicyType{mnpv1.PolicyTypeIngress},
			Ingress:     []mnpv1.MultiNetworkPolicyIngressRule{{Ports: ports, From: []mnpv1.MultiNetworkPolicyPeer{peers}}},
		},
	}
}
