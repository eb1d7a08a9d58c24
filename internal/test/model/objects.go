package model

import (
	"encoding/json"
	"fmt"
	"strings"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// Key is the namespace and name of an object. A Namespace has only a name.
type Key = types.NamespacedName

// Node is the node of local pods.
const Node = "node-1"

// Annotations of pods and policies.
const (
	statusAnnotation    = "k8s.v1.cni.cncf.io/network-status"
	networksAnnotation  = "k8s.v1.cni.cncf.io/networks"
	policyForAnnotation = "k8s.v1.cni.cncf.io/policy-for"
)

// KeyOf parses "namespace/name", or "name" in the namespace default.
// It is the form in which tests write names.
func KeyOf(s string) Key {
	ns, name, ok := strings.Cut(s, "/")
	if !ok {
		return Key{Namespace: "default", Name: s}
	}
	return Key{Namespace: ns, Name: name}
}

// meta returns metadata with labels "key=value …". The UID follows from the name.
// The UID differs from name to name, and stays the same for an object that is made again.
func meta(key, labels string) metav1.ObjectMeta {
	k := KeyOf(key)
	m := metav1.ObjectMeta{Namespace: k.Namespace, Name: k.Name, UID: types.UID("uid-" + key)}
	for _, l := range strings.Fields(labels) {
		if m.Labels == nil {
			m.Labels = map[string]string{}
		}
		k, v, _ := strings.Cut(l, "=")
		m.Labels[k] = v
	}
	return m
}

// NewPod returns a running local pod with labels "key=value …". Each attachment is "interface network address…".
// An example: NewPod("shop/web", "app=web tier=x", "net1 net-a 10.0.0.1 fd00::1").
func NewPod(key, labels string, attachments ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: meta(key, labels)}
	p.Spec.NodeName = Node
	p.Status.Phase = corev1.PodRunning
	SetStatus(p, attachments...)
	return p
}

// NewPeer is NewPod for a pod on another node.
// A peer has no table, so it matters only by its labels and addresses.
func NewPeer(key, labels string, attachments ...string) *corev1.Pod {
	p := NewPod(key, labels, attachments...)
	p.Spec.NodeName = "node-2"
	return p
}

// SetStatus replaces a pod's annotations by a network status. Without attachments it changes nothing.
// Networks are names in the namespace of the pod, or NAMESPACE/NAME.
func SetStatus(p *corev1.Pod, attachments ...string) {
	if len(attachments) == 0 {
		return
	}
	var list []map[string]any
	for _, a := range attachments {
		// The hardware address has the form of a real status; nothing depends on its value.
		f := strings.Fields(a)
		list = append(list, map[string]any{"interface": f[0], "name": f[1], "ips": f[2:], "mac": "02:00:00:00:00:01"})
	}
	raw, err := json.Marshal(list)
	if err != nil {
		panic(err)
	}
	p.Annotations = map[string]string{statusAnnotation: string(raw)}
}

// SetNetworks replaces a pod's annotations by a request for networks, as before Multus has attached the pod.
// It returns the pod.
func SetNetworks(p *corev1.Pod, networks string) *corev1.Pod {
	p.Annotations = map[string]string{networksAnnotation: networks}
	return p
}

// WithPorts adds a container with ports to a pod. Each port is "name=number/protocol".
// An example: "http=80/TCP". It returns the pod, and panics for other texts.
func WithPorts(p *corev1.Pod, ports ...string) *corev1.Pod {
	var c corev1.Container
	for _, s := range ports {
		var port corev1.ContainerPort
		name, rest, _ := strings.Cut(s, "=")
		if _, err := fmt.Sscanf(strings.ReplaceAll(rest, "/", " "), "%d %s", &port.ContainerPort, &port.Protocol); err != nil {
			panic(err)
		}
		port.Name = name
		c.Ports = append(c.Ports, port)
	}
	p.Spec.Containers = append(p.Spec.Containers, c)
	return p
}

// NewNamespace returns a namespace with labels "key=value …".
// Such an object has no namespace itself.
func NewNamespace(name, labels string) *corev1.Namespace {
	// The key "/NAME" gives an object without a namespace.
	return &corev1.Namespace{ObjectMeta: meta("/"+name, labels)}
}

// NewNAD returns a NetworkAttachmentDefinition with a CNI configuration of the plugin type.
// Only the type matters to policies.
func NewNAD(key, pluginType string) *netv1.NetworkAttachmentDefinition {
	nad := &netv1.NetworkAttachmentDefinition{ObjectMeta: meta(key, "")}
	nad.Spec.Config = `{"cniVersion": "0.3.1", "type": "` + pluginType + `"}`
	return nad
}

// NewPolicy returns a policy for the networks with a spec in YAML, where tabs are allowed as indentation.
// It panics for an invalid text, as it is a fault of the test. Unknown fields are invalid.
func NewPolicy(key, networks, spec string) *mnpv1.MultiNetworkPolicy {
	p := &mnpv1.MultiNetworkPolicy{ObjectMeta: meta(key, "")}
	p.Annotations = map[string]string{policyForAnnotation: networks}
	if err := yaml.UnmarshalStrict([]byte(strings.ReplaceAll(spec, "\t", "  ")), &p.Spec); err != nil {
		panic(fmt.Sprintf("%v in %s", err, spec))
	}
	return p
}

// With changes a pod and returns it.
// It fits into a list of objects in a test.
func With(p *corev1.Pod, change func(*corev1.Pod)) *corev1.Pod {
	change(p)
	return p
}

// WebPod returns the pod default/web, the isolated pod of most test cases.
// It is on the cluster network and two other networks, and has named ports, a sidecar whose port counts, and an
// ordinary init container whose port does not count.
func WebPod() *corev1.Pod {
	p := WithPorts(NewPod("web", "app=web", "eth0 cluster-net 10.244.0.5", "net1 net-a 10.0.0.1 fd00::1", "net2 net-b 10.9.0.1"),
		"http=80/TCP", "dns=53/UDP")
	always := corev1.ContainerRestartPolicyAlways
	p.Spec.InitContainers = []corev1.Container{
		{RestartPolicy: &always, Ports: []corev1.ContainerPort{{Name: "side", ContainerPort: 15000}}},
		{Ports: []corev1.ContainerPort{{Name: "init", ContainerPort: 15001}}},
	}
	return p
}
