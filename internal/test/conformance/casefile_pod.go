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
)

// The annotations that mean something to the agent.
const (
	statusAnnotation       = "k8s.v1.cni.cncf.io/network-status"
	legacyStatusAnnotation = "k8s.v1.cni.cncf.io/networks-status"
	networksAnnotation     = "k8s.v1.cni.cncf.io/networks"
	policyForAnnotation    = "k8s.v1.cni.cncf.io/policy-for"
)

// defaultNode is where pods run that do not say otherwise.
const defaultNode = "node-1"

// statusEntry is an entry of a network status as Multus writes it.
type statusEntry struct {
	Name      string   `json:"name"`
	Interface string   `json:"interface,omitempty"`
	IPs       []string `json:"ips,omitempty"`
	Default   bool     `json:"default,omitempty"`
}

// pod reads a pod: its name and labels, and then parts that begin with a word. That is "port", "sidecar" or "init" for
// named ports (NAME=NUMBER/PROTOCOL), "phase", "node", "no-node", "uid", "host-network", "status" for a network status that
// cannot be read, "no-status", "networks" for the requested networks, and else the name of an interface, with its network and
// addresses. An interface with "status:" before its name is in the network status only, an interface with "kernel:" in the
// kernel only; "vrf:", "bond:" and "bridge:" say which device it is.
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
	if _, given := pod.Annotations[statusAnnotation]; !given {
		setStatus(pod, status)
	}
	return pod, nil
}

func setStatus(pod *corev1.Pod, status []statusEntry) {
	raw, err := json.Marshal(status)
	if err != nil {
		panic(err) // there is nothing in it that could not be marshaled
	}
	pod.Annotations[statusAnnotation] = string(raw)
}

// iface reads "net1 ops/a 10.1.0.1 fd00:1::1".
func (b *builder) iface(namespace string, fields []string) (Link, statusEntry, error) {
	if len(fields) < 2 {
		return Link{}, statusEntry{}, fmt.Errorf("%q names no network", fields[0])
	}
	prefix, name, _ := strings.Cut(fields[0], ":")
	if name == "" {
		prefix, name = "", prefix
	}
	network, ok := networkNamed(fields[1], namespace)
	if !ok {
		return Link{}, statusEntry{}, fmt.Errorf("%q is not the name of a network", fields[1])
	}
	wire, ok := b.wires[network]
	if !ok {
		return Link{}, statusEntry{}, fmt.Errorf("network %s is on no wire", network)
	}
	link := Link{Iface: name, Wire: wire}
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
