package cache

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// IP protocol numbers (IANA) of the protocols that policies know.
const (
	protoTCP  = 6
	protoUDP  = 17
	protoSCTP = 132
)

// protocolNumber is false for a protocol that policies do not know.
func protocolNumber(p corev1.Protocol) (uint8, bool) {
	switch p {
	case corev1.ProtocolTCP:
		return protoTCP, true
	case corev1.ProtocolUDP:
		return protoUDP, true
	case corev1.ProtocolSCTP:
		return protoSCTP, true
	}
	return 0, false
}

func protocolName(p uint8) string {
	switch p {
	case protoTCP:
		return "tcp"
	case protoUDP:
		return "udp"
	}
	return "sctp"
}

// portName is a port by name.
type portName struct {
	proto uint8
	name  string
}

func (p portName) compare(q portName) int {
	return cmp.Or(cmp.Compare(p.proto, q.proto), cmp.Compare(p.name, q.name))
}

// namedPort is a port of a pod that has a name.
type namedPort struct {
	portName
	number uint16
}

// namedPortsOf returns the named ports of a pod's containers, and of the init containers that run beside them.
func namedPortsOf(obj *corev1.Pod) []namedPort {
	var out []namedPort
	add := func(containers []corev1.Container, only func(*corev1.Container) bool) {
		for i := range containers {
			if only(&containers[i]) {
				out = appendNamedPorts(out, containers[i].Ports)
			}
		}
	}
	add(obj.Spec.Containers, func(*corev1.Container) bool { return true })
	add(obj.Spec.InitContainers, func(c *corev1.Container) bool {
		return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
	})
	slices.SortFunc(out, func(a, b namedPort) int {
		return cmp.Or(a.compare(b.portName), cmp.Compare(a.number, b.number))
	})
	return slices.Compact(out)
}

func appendNamedPorts(out []namedPort, ports []corev1.ContainerPort) []namedPort {
	for _, p := range ports {
		proto, ok := protocolNumber(cmp.Or(p.Protocol, corev1.ProtocolTCP))
		if p.Name != "" && ok && p.ContainerPort > 0 && p.ContainerPort <= maxPort {
			out = append(out, namedPort{portName{proto, p.Name}, uint16(p.ContainerPort)})
		}
	}
	return out
}

const maxPort = 65535

// compilePorts reads a rule's ports: those given by number, and those by name, sorted. A port with anything wrong in it
// is left out.
func compilePorts(field string, in []mnpv1.MultiNetworkPolicyPort, ps *problems) (sets.Ports, []portName) {
	var numbers []sets.PortRange
	var names []portName
	for i, p := range in {
		at := fmt.Sprintf("%s[%d]", field, i)
		proto := uint8(protoTCP)
		if p.Protocol != nil {
			number, ok := protocolNumber(*p.Protocol)
			if !ok {
				ps.add(at+".protocol", "%q is none of TCP, UDP, SCTP, so the port allows nothing", *p.Protocol)
				continue
			}
			proto = number
		}
		if p.Port != nil && p.Port.Type == intstr.String {
			if isNamedPort(at, p, ps) {
				names = append(names, portName{proto, p.Port.StrVal})
			}
			continue
		}
		if from, to, ok := compileRange(at, p, ps); ok {
			numbers = append(numbers, sets.PortRange{Proto: proto, From: from, To: to})
		}
	}
	slices.SortFunc(names, portName.compare)
	return sets.NewPorts(numbers...), slices.Compact(names)
}

func isNamedPort(field string, p mnpv1.MultiNetworkPolicyPort, ps *problems) bool {
	if wrong := validation.IsValidPortName(p.Port.StrVal); len(wrong) > 0 {
		ps.add(field+".port", "%q is not the name of a port, so it allows nothing: %s", p.Port.StrVal, strings.Join(wrong, "; "))
		return false
	}
	if p.EndPort != nil {
		ps.add(field+".endPort", "needs a port that is a number, so the port allows nothing")
		return false
	}
	return true
}

func compileRange(field string, p mnpv1.MultiNetworkPolicyPort, ps *problems) (from, to uint16, ok bool) {
	if p.Port == nil {
		if p.EndPort != nil {
			ps.add(field+".endPort", "needs a port, so the port allows nothing")
			return 0, 0, false
		}
		return 0, maxPort, true
	}
	first := p.Port.IntVal
	if first < 1 || first > maxPort {
		ps.add(field+".port", "%d is not from 1 to %d, so it allows nothing", first, maxPort)
		return 0, 0, false
	}
	if p.EndPort == nil {
		return uint16(first), uint16(first), true
	}
	if last := *p.EndPort; last < first || last > maxPort {
		ps.add(field+".endPort", "%d is not from %d to %d, so the port allows nothing", last, first, maxPort)
		return 0, 0, false
	}
	return uint16(first), uint16(*p.EndPort), true
}

// portList is the set of a list of ports. Rules that have the same list share it.
type portList struct {
	set   *engine.Set
	users int
}

// portsName names a list of ports by its content.
func portsName(p sets.Ports) string {
	c := newCanon("ports").count(p.Len())
	for r := range p.Ranges() {
		c.text(protocolName(r.Proto)).count(int(r.From)).count(int(r.To))
	}
	return "ports-" + c.id()
}

func (c *Cache) acquirePorts(p sets.Ports) *engine.Set {
	name := portsName(p)
	l := c.ports[name]
	if l == nil {
		l = &portList{set: &engine.Set{Name: name, Elements: engine.Ports{Ports: p}}}
		c.ports[name] = l
	}
	l.users++
	return l.set
}

func (c *Cache) releasePorts(s *engine.Set) {
	l := c.ports[s.Name]
	if l.users--; l.users == 0 {
		delete(c.ports, s.Name)
	}
}
