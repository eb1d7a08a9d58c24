package conformance

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// newPod makes a pod, unless its name is taken or there are enough pods.
func (g *generator) newPod() {
	key := oracle.Key{Namespace: one(g, someNamespaces...), Name: fmt.Sprintf("p%d", g.IntN(2*podCount))}
	if g.chance(10) {
		key.Name = longName + one(g, "a", "b")
	}
	if g.state.Pod(key) != nil || len(g.links) >= podCount {
		return
	}
	g.makePod(key)
}

// makePod makes a pod with up to four interfaces. It may be on another node, pending, or on its node's network.
// The UID is new.
func (g *generator) makePod(key oracle.Key) {
	g.uids++
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace, Name: key.Name, UID: types.UID(fmt.Sprintf("uid-%d", g.uids)), Labels: g.labels(),
			Annotations: map[string]string{}, CreationTimestamp: metav1.Unix(g.now, 0),
		},
		Spec:   corev1.PodSpec{NodeName: one(g, defaultNode, defaultNode, defaultNode, defaultNode, defaultNode, defaultNode, remoteNode)},
		Status: corev1.PodStatus{Phase: one(g, corev1.PodRunning, corev1.PodRunning, corev1.PodRunning, corev1.PodPending)},
	}
	g.namePorts(pod)
	pod.Spec.HostNetwork = g.chance(6)
	var links []netLink
	if g.chance(15) {
		links = append(links, g.link("eth0", clusterNetwork))
	}
	for i := range g.IntN(4) {
		links = append(links, g.link(fmt.Sprintf("net%d", i+1), one(g, someNetworks...)))
	}
	if n := len(links); n > 1 && g.chance(20) { // the same network twice
		links[n-1] = g.link(links[n-1].Iface, links[0].network)
	}
	g.links[key] = links
	g.describe(pod)
	g.put(pod)
	if g.chance(20) { // Multus writes the status some time after the pod is there
		g.stepBack(pod)
	}
}

// stepBack replaces the last event, which put a pod, by two events: in the first event the pod has no network status.
// The agent sees a pod without a status first, as on a real cluster.
func (g *generator) stepBack(pod *corev1.Pod) {
	bare := pod.DeepCopy()
	delete(bare.Annotations, statusAnnotation)
	delete(bare.Annotations, legacyStatusAnnotation)
	last := len(g.events) - 1
	g.events = append(g.events[:last:last], Event{Put: bare}, Event{Put: pod})
}

// link makes an interface on a network, with free addresses: mostly one of each family, sometimes none or two.
// An interface may have no address, or none of a family whose addresses are all taken.
func (g *generator) link(iface string, n oracle.Key) netLink {
	wire := g.wireOf[n]
	l := netLink{Link{Iface: iface, Wire: wire}, n}
	families := one(g, "46", "46", "46", "46", "4", "6", "", "446", "466")
	for _, f := range families {
		if a := g.take(wire, f == '4'); a.IsValid() {
			l.Addrs = append(l.Addrs, a)
		}
	}
	return l
}

// namePorts gives a pod named ports. The names are those of other pods, the numbers may differ, so a rule that names a
// port means other numbers for each pod.
func (g *generator) namePorts(pod *corev1.Pod) {
	container := func() corev1.Container {
		var c corev1.Container
		for range g.IntN(3) {
			c.Ports = append(c.Ports, corev1.ContainerPort{
				Name: one(g, "http", "http", "dns", ""), ContainerPort: int32(one(g, somePorts...)),
				Protocol: one(g, "", corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP),
			})
		}
		return c
	}
	pod.Spec.Containers = []corev1.Container{container(), container()}
	if g.chance(30) {
		side := container()
		if g.chance(60) {
			always := corev1.ContainerRestartPolicyAlways
			side.RestartPolicy = &always
		}
		pod.Spec.InitContainers = []corev1.Container{side}
	}
}

// request writes the requested networks of a pod: as a JSON list or in the short form ("ns/net@net1, net"), and
// sometimes with a network that the status does not have.
func (g *generator) request(pod *corev1.Pod) {
	var requests []networkRequest
	for _, l := range g.links[oracle.Key{Namespace: pod.Namespace, Name: pod.Name}] {
		requests = append(requests, g.requestOf(pod, len(requests)+1, l.network, l.Iface))
	}
	if g.chance(20) {
		requests = append(requests, g.requestOf(pod, len(requests)+1, one(g, someNetworks...), one(g, "", "net1", "net4")))
	}
	if len(requests) == 0 {
		delete(pod.Annotations, networksAnnotation)
		return
	}
	if g.chance(50) {
		raw, err := json.Marshal(requests)
		if err != nil {
			panic(err) // there is nothing in it that could not be marshaled
		}
		pod.Annotations[networksAnnotation] = string(raw)
		return
	}
	var texts []string
	for _, r := range requests {
		text := r.Name
		if r.Namespace != "" {
			text = r.Namespace + "/" + text
		}
		if iface := cmp.Or(r.Interface, r.InterfaceRequest); iface != "" {
			text += "@" + iface
		}
		texts = append(texts, one(g, "", "", " ")+text)
	}
	pod.Annotations[networksAnnotation] = strings.Join(texts, ",")
}

// networkRequest is an entry of the annotation with the requested networks, as Multus reads it.
type networkRequest struct {
	Name             string `json:"name"`
	Namespace        string `json:"namespace,omitempty"`
	Interface        string `json:"interface,omitempty"`
	InterfaceRequest string `json:"interfaceRequest,omitempty"` // an older name of interface
}

// requestOf makes an entry of the requested networks. Sometimes it leaves out the namespace or the name of the
// interface, where the defaults are right: the pod's namespace, and "net" with the place in the list.
// place counts from 1.
func (g *generator) requestOf(pod *corev1.Pod, place int, n oracle.Key, iface string) networkRequest {
	r := networkRequest{Name: n.Name, Namespace: n.Namespace}
	if n.Namespace == pod.Namespace && g.chance(50) {
		r.Namespace = ""
	}
	switch {
	case iface == fmt.Sprint("net", place) && g.chance(50):
	case g.chance(20):
		r.InterfaceRequest = iface
	default:
		r.Interface = iface
	}
	return r
}

// describe writes the interfaces of a pod into its annotations: for the kernel, in the network status, and sometimes as
// requested networks. The network status is sometimes incomplete or has entries that are not valid.
// The pod is not put; the caller does that.
func (g *generator) describe(pod *corev1.Pod) {
	key := oracle.Key{Namespace: pod.Namespace, Name: pod.Name}
	var links []Link
	var status []statusEntry
	for _, l := range g.links[key] {
		link := l.Link
		link.Addrs = slices.Clone(l.Addrs)
		links = append(links, link)
		entry := statusEntry{Name: l.network.String(), Interface: l.Iface, Default: l.Iface == "eth0"}
		if l.network.Namespace == pod.Namespace && g.chance(50) {
			entry.Name = l.network.Name
		}
		for _, a := range l.Addrs {
			if !g.chance(4) { // else the status does not have the address
				entry.IPs = append(entry.IPs, a.String())
			}
		}
		// Addresses in a form that the agent must not trust or must normalize.
		if g.chance(3) {
			entry.IPs = append(entry.IPs, one(g, "10.0.0.300", "", "10.0.1.1", "::ffff:10.0.0.2", "fd00::3%net1"))
		}
		status = append(status, entry)
	}
	// Entries without a part, with a name that is not valid, or for an interface that the kernel does not have like
	// that.
	if g.chance(3) {
		status = append(status, one(g, statusEntry{Name: "a/one"}, statusEntry{Interface: "net1"},
			statusEntry{Name: "a/b/c", Interface: "net1"}, statusEntry{Name: "a/one", Interface: "a-name-too-long-for-it"},
			statusEntry{Name: "b/three", Interface: "net1", IPs: []string{"10.0.0.1", "fd00:1::1"}}))
	}
	setLinks(pod, links)
	setStatus(pod, status)
	delete(pod.Annotations, networksAnnotation)
	if g.chance(40) {
		g.request(pod)
	}
	if g.chance(5) {
		pod.Annotations[legacyStatusAnnotation] = pod.Annotations[statusAnnotation]
		delete(pod.Annotations, statusAnnotation)
	}
	delete(g.broken, pod.UID)
}
