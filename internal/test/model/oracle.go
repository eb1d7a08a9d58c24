package model

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// Oracle judges packets of a world directly from its objects.
type Oracle struct {
	Pods   map[Key]*corev1.Pod // a test may look up the pod that a packet belongs to
	oracle oracle.Oracle
}

// NewOracle returns an oracle for the objects, which it does not copy. An object that comes again under the same key replaces the
// earlier object. The plugins are the network types that policies isolate.
func NewOracle(objects []metav1.Object, plugins ...string) *Oracle {
	o := &Oracle{map[Key]*corev1.Pod{}, oracle.Oracle{Node: Node, Plugins: plugins}}
	state := oracle.State{}
	for _, obj := range objects {
		obj := obj.(oracle.Object)
		ref := oracle.RefOf(obj)
		if pod, ok := obj.(*corev1.Pod); ok {
			o.Pods[ref.Key] = pod
			pod = pod.DeepCopy()
			pod.UID = types.UID(ref.Key.String()) // pods of a random world share UIDs
			obj = pod
		}
		state[ref] = obj
	}
	o.oracle.Observe(state)
	return o
}

// Passes reports whether a packet to or from a pod passes the policies of the pod.
func (o *Oracle) Passes(pod *corev1.Pod, p Packet) bool {
	self := oracle.Endpoint{Pod: Key{Namespace: pod.Namespace, Name: pod.Name}, Iface: p.Iface, Addr: netip.IPv4Unspecified()}
	peer := oracle.Endpoint{Addr: p.Peer}
	packet := oracle.Packet{From: peer, To: self, Proto: oracle.Protocol(p.Proto), Port: p.Port}
	if p.Direction == engine.Ingress {
		_, ruling := o.oracle.Judge(packet)
		return ruling.Allowed
	}
	packet.From, packet.To = self, peer
	ruling, _ := o.oracle.Judge(packet)
	return ruling.Allowed
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
