package policy

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// IP protocol numbers (IANA) of the protocols that policies can name.
const (
	TCP  = 6
	UDP  = 17
	SCTP = 132
)

// MaxPort is the largest port of TCP, UDP and SCTP.
const MaxPort = 65535

// ProtocolNumber returns the IP protocol number of a protocol of the API, ignoring case. It returns false for a protocol other
// than TCP, UDP and SCTP.
func ProtocolNumber(p corev1.Protocol) (uint8, bool) {
	switch corev1.Protocol(strings.ToUpper(strings.TrimSpace(string(p)))) {
	case corev1.ProtocolTCP:
		return TCP, true
	case corev1.ProtocolUDP:
		return UDP, true
	case corev1.ProtocolSCTP:
		return SCTP, true
	}
	return 0, false
}

// ProtocolName is the inverse of ProtocolNumber, in lower case.
func ProtocolName(p uint8) string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return "sctp"
}

// PortName is the name of a port together with its protocol: pods may use a name for TCP and UDP.
type PortName struct {
	Proto uint8
	Name  string
}

// Compare orders names by protocol and name. It returns 0 for equal names.
func (p PortName) Compare(q PortName) int {
	return cmp.Or(cmp.Compare(p.Proto, q.Proto), cmp.Compare(p.Name, q.Name))
}

// NamedPort is a port of a pod with its name.
type NamedPort struct {
	PortName
	Number uint16
}

// NamedPorts returns the named ports of a pod's containers and sidecars (init containers that keep running), sorted, and cut off
// at the limit.
func NamedPorts(obj *corev1.Pod, limit int) []NamedPort {
	var out []NamedPort
	for i := range obj.Spec.Containers {
		out = appendNamedPorts(out, obj.Spec.Containers[i].Ports)
	}
	for i := range obj.Spec.InitContainers {
		c := &obj.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways { // a sidecar
			out = appendNamedPorts(out, c.Ports)
		}
	}
	slices.SortFunc(out, func(a, b NamedPort) int {
		return cmp.Or(a.Compare(b.PortName), cmp.Compare(a.Number, b.Number))
	})
	out = slices.Compact(out)
	return slices.Clip(out[:min(len(out), limit)])
}

// appendNamedPorts appends the valid named ports of a container.
func appendNamedPorts(out []NamedPort, ports []corev1.ContainerPort) []NamedPort {
	for _, p := range ports {
		proto, ok := ProtocolNumber(cmp.Or(p.Protocol, corev1.ProtocolTCP))
		if p.Name != "" && ok && p.ContainerPort > 0 && p.ContainerPort <= MaxPort {
			out = append(out, NamedPort{PortName{proto, p.Name}, uint16(p.ContainerPort)})
		}
	}
	return out
}

// numbersOf returns the ports of a pod with a name. pod must be sorted. Several containers may use the name for different ports.
func numbersOf(name PortName, pod []NamedPort) []NamedPort {
	from, _ := slices.BinarySearchFunc(pod, name, func(p NamedPort, n PortName) int { return p.Compare(n) })
	to := from
	for to < len(pod) && pod[to].PortName == name {
		to++
	}
	return pod[from:to]
}

// rawPort is a port of a rule with undecoded fields.
type rawPort struct {
	Protocol json.RawMessage `json:"protocol"`
	Port     json.RawMessage `json:"port"`
	EndPort  json.RawMessage `json:"endPort"`
}

// compilePorts reads the ports of a rule, and returns the ports with numbers and the sorted names of the others. A port with any
// invalid field allows nothing.
// Ports with numbers are joined into ranges.
func compilePorts(field string, list []json.RawMessage, u *usage, ps *Problems) (sets.Ports, []PortName) {
	var numbers []sets.PortRange
	var names []PortName
	for i, raw := range list {
		at := item(field, i)
		if !u.takePort(at, ps) {
			break
		}
		var p rawPort
		if err := decode(raw, &p); err != nil || isNull(raw) {
			ps.Add(at, "cannot be decoded, so the port allows nothing: %s", quoteJSON(raw))
			continue
		}
		proto, ok := compileProtocol(at, p.Protocol, ps)
		if !ok {
			continue
		}
		if name, isName := portName(p.Port); isName {
			if isValidName(at, name, p, ps) {
				names = append(names, PortName{proto, name})
			}
			continue
		}
		if from, to, ok := compileRange(at, p, ps); ok {
			numbers = append(numbers, sets.PortRange{Proto: proto, From: from, To: to})
		}
	}
	slices.SortFunc(names, PortName.Compare)
	return sets.NewPorts(numbers...), slices.Compact(names)
}

// compileProtocol reads a protocol. An absent protocol is TCP.
func compileProtocol(field string, raw json.RawMessage, ps *Problems) (uint8, bool) {
	if isNull(raw) {
		return TCP, true
	}
	var name corev1.Protocol
	if decode(raw, &name) == nil {
		if number, ok := ProtocolNumber(name); ok {
			return number, true
		}
	}
	ps.Add(field+".protocol", "%s is none of TCP, UDP, SCTP, so the port allows nothing", quoteJSON(raw))
	return 0, false
}

// portName returns the name of a port, and false if the port has a number. A number in quotes counts as a number.
func portName(raw json.RawMessage) (string, bool) {
	var name string
	if isNull(raw) || decode(raw, &name) != nil {
		return "", false
	}
	_, isNumber := decodeNumber(raw)
	return strings.TrimSpace(name), !isNumber
}

// isValidName reports whether a named port is valid. A named port has no endPort.
// It adds a Problem if not.
func isValidName(field, name string, p rawPort, ps *Problems) bool {
	if wrong := validation.IsValidPortName(name); len(wrong) > 0 {
		ps.Add(field+".port", "%s is not the name of a port, so it allows nothing: %s", Quote(name), strings.Join(wrong, "; "))
		return false
	}
	if !isNull(p.EndPort) {
		ps.Add(field+".endPort", "needs a port that is a number, so the port allows nothing")
		return false
	}
	return true
}

// compileRange reads port and endPort. Without a port, it returns all ports.
func compileRange(field string, p rawPort, ps *Problems) (from, to uint16, ok bool) {
	if isNull(p.Port) {
		if !isNull(p.EndPort) {
			ps.Add(field+".endPort", "needs a port, so the port allows nothing")
			return 0, 0, false
		}
		return 0, MaxPort, true
	}
	first, ok := decodeNumber(p.Port)
	if !ok || first < 1 || first > MaxPort {
		ps.Add(field+".port", "%s is not a port from 1 to %d, so it allows nothing", quoteJSON(p.Port), MaxPort)
		return 0, 0, false
	}
	if isNull(p.EndPort) {
		return uint16(first), uint16(first), true
	}
	last, ok := decodeNumber(p.EndPort)
	if !ok || last < first || last > MaxPort {
		ps.Add(field+".endPort", "%s is not a port from %d to %d, so the port allows nothing", quoteJSON(p.EndPort), first, MaxPort)
		return 0, 0, false
	}
	return uint16(first), uint16(last), true
}

// encodePorts appends the canonical encoding of a list of ports.
func encodePorts(e encoder, p sets.Ports) encoder {
	e.count(p.Len())
	for r := range p.Ranges() {
		e.text(ProtocolName(r.Proto)).count(int(r.From)).count(int(r.To))
	}
	return e
}
