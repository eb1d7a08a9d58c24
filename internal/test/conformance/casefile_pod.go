package conformance

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// The annotations that the agent reads. The first three are of Multus, the last belongs to the API of
// MultiNetworkPolicy.
const (
	statusAnnotation = "k8s.v1.cni.cncf.io/network-status"
	// An older name of the same annotation, which the agent reads where the new name is missing.
	legacyStatusAnnotation = "k8s.v1.cni.cncf.io/networks-status"
	networksAnnotation     = "k8s.v1.cni.cncf.io/networks"
	policyForAnnotation    = "k8s.v1.cni.cncf.io/policy-for"
	modeAnnotation         = "multi-networkpolicy/mode"
)

// defaultNode is the node of a pod for which the case names no node.
const defaultNode = "node-1"

// statusEntry is an entry of the annotation network-status, in the form that Multus writes (the NetworkStatus of the
// Network Plumbing Working Group's specification). Fields that the agent does not read are left out.
// An entry without IPs is an interface without addresses.
type statusEntry struct {
	Name      string   `json:"name"`
	Interface string   `json:"interface,omitempty"`
	IPs       []string `json:"ips,omitempty"`
	Default   bool     `json:"default,omitempty"`
}

// pod reads a pod: its name and labels, and then parts between bars. Each part begins with a word:
//
//	port, sidecar, init     named ports NAME=NUMBER/PROTOCOL, of a container of that kind
//	phase, node, uid        a value of the object
//	no-node, host-network   no value: the pod has no node, or is on the network of its node
//	status                  a network status that cannot be read, in place of the status of the interfaces
//	no-status               an empty network status
//	networks                the annotation with the requested networks
//	any other word          an interface, its network and its addresses
//
// An interface with "status:" before its name is in the network status only, an interface with "kernel:" in the kernel only;
// "vrf:", "bond:" and "bridge:" name the device of the interface.
func (b *builder) pod(text string) (*corev1.Pod, error) {
	parts := strings.Split(text, "|")
	head := strings.Fields(parts[0])
	key := parseKey(head[0])
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace, Name: key.Name, UID: types.UID(key.String()), Labels: parseLabels(head[1:]),
			Annotations: map[string]string{},
		},
		Spec:   corev1.PodSpec{NodeName: defaultNode},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	// The interfaces of the kernel and of the network status are two lists, because a case may let them differ.
	var links []Link
	var status []statusEntry
	for _, part := range parts[1:] {
		fields := strings.Fields(part)
		switch fields[0] {
		case "port", "sidecar", "init":
			if err := addPorts(pod, fields[0], fields[1:]); err != nil {
				return nil, err
			}
		case "phase":
			pod.Status.Phase = corev1.PodPhase(fields[1])
		case "node":
			pod.Spec.NodeName = fields[1]
		case "no-node":
			pod.Spec.NodeName = ""
		case "uid":
			pod.UID = types.UID(fields[1])
		case "host-network":
			pod.Spec.HostNetwork = true
		case "status":
			pod.Annotations[statusAnnotation] = fields[1]
		case "no-status":
			pod.Annotations[statusAnnotation] = ""
		case "networks":
			pod.Annotations[networksAnnotation] = fields[1]
		default:
			link, entry, err := b.iface(key.Namespace, fields)
			if err != nil {
				return nil, err
			}
			if !strings.HasPrefix(fields[0], "status:") {
				links = append(links, link)
			}
			if !strings.HasPrefix(fields[0], "kernel:") {
				status = append(status, entry)
			}
		}
	}
	setLinks(pod, links)
	// An explicit status, also an empty status, replaces the status that follows from the interfaces.
	if _, given := pod.Annotations[statusAnnotation]; !given {
		setStatus(pod, status)
	}
	return pod, nil
}

// setStatus writes the network status of a pod. An empty list is written as "null", which the agent reads as a status
// without interfaces.
// The annotations of the pod must not be nil.
func setStatus(pod *corev1.Pod, status []statusEntry) {
	raw, err := json.Marshal(status)
	if err != nil {
		panic(err) // there is nothing in it that could not be marshaled
	}
	pod.Annotations[statusAnnotation] = string(raw)
}

// iface reads an interface, for example "net1 ops/a 10.1.0.1 fd00:1::1" or "vrf:net2 b 10.2.0.1". The network must be
// on a wire already.
// namespace is that of the pod, for a network without a namespace.
func (b *builder) iface(namespace string, fields []string) (Link, statusEntry, error) {
	if len(fields) < 2 {
		return Link{}, statusEntry{}, fmt.Errorf("%q names no network", fields[0])
	}
	prefix, name, _ := strings.Cut(fields[0], ":")
	if name == "" {
		prefix, name = "", prefix
	}
	network, ok := oracle.NetworkNamed(fields[1], namespace)
	if !ok {
		return Link{}, statusEntry{}, fmt.Errorf("%q is not the name of a network", fields[1])
	}
	wire, ok := b.wires[network]
	if !ok {
		return Link{}, statusEntry{}, fmt.Errorf("network %s is on no wire", network)
	}
	link := Link{Iface: name, Wire: wire}
	// The other prefixes ("status:", "kernel:") are for the caller. They name no device.
	if slices.Contains([]string{VRF, Bond, Bridge}, prefix) {
		link.Device = prefix
	}
	entry := statusEntry{Name: fields[1], Interface: name, IPs: fields[2:]}
	for _, s := range fields[2:] {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return Link{}, statusEntry{}, err
		}
		link.Addrs = append(link.Addrs, a)
	}
	return link, entry, nil
}

// addPorts adds a container with named ports. Three kinds exist because only the ports of containers that run as long
// as the pod count: ordinary containers, and init containers that restart always (sidecars, KEP-753).
// A text is NAME=NUMBER/PROTOCOL.
func addPorts(pod *corev1.Pod, kind string, texts []string) error {
	c := corev1.Container{Name: kind}
	for _, s := range texts {
		name, rest, _ := strings.Cut(s, "=")
		number, proto, _ := strings.Cut(rest, "/")
		n, err := strconv.ParseInt(number, 10, 32)
		if err != nil {
			return fmt.Errorf("port %q: %w", s, err)
		}
		c.Ports = append(c.Ports, corev1.ContainerPort{Name: name, ContainerPort: int32(n), Protocol: corev1.Protocol(proto)})
	}
	switch kind {
	case "sidecar":
		always := corev1.ContainerRestartPolicyAlways
		c.RestartPolicy = &always
		fallthrough
	case "init":
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, c)
	default:
		pod.Spec.Containers = append(pod.Spec.Containers, c)
	}
	return nil
}
