package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// linksAnnotation is on every pod: the interfaces that the kernel is to have for the pod, a JSON list of [Link]. The
// agent does not read the annotation. So a case can let the kernel and the network status differ.
const linksAnnotation = "conformance/links"

// linksOf returns the interfaces that the kernel has for a pod. A pod that has ended or is on the network of its node
// has none.
func linksOf(p *corev1.Pod) []Link {
	if oracle.IsOutside(p) {
		return nil
	}
	return annotatedLinks(p)
}

// annotatedLinks returns the interfaces in the annotation of a pod, also of a pod that has ended.
func annotatedLinks(p *corev1.Pod) []Link {
	var links []Link
	if raw := p.Annotations[linksAnnotation]; raw != "" {
		if err := json.Unmarshal([]byte(raw), &links); err != nil {
			panic(fmt.Sprintf("%s of %s/%s: %v", linksAnnotation, p.Namespace, p.Name, err)) // setLinks wrote it
		}
	}
	return links
}

// setLinks writes the annotation that [annotatedLinks] reads.
// The pod may have no annotations before.
func setLinks(p *corev1.Pod, links []Link) {
	raw, err := json.Marshal(links)
	if err != nil {
		panic(err) // there is nothing in it that could not be marshaled
	}
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	p.Annotations[linksAnnotation] = string(raw)
}

// Fabric is the kernel's side of a case: a network namespace for each pod, one namespace for everything outside the
// pods, and a bridge for each wire.
//
//	pod a        pod b            outside
//	  │ net1       │ net1  │ net2   │ o-w0  │ o-w1
//	  └─── w0 ─────┴───────┼────────┘       │
//	                       └───── w1 ───────┘
//
// A Fabric is for one goroutine. It needs the privileges to make network namespaces.
type Fabric struct {
	lab *lab.Lab
	// The ports that every host listens on, and that probes go to.
	ports []uint16
	// The hosts of pods. The outside is not among them.
	hosts   map[types.UID]*host
	outside *host
	all     []*host         // in the order in which they came
	wires   map[string]bool // the wires that the outside is attached to
	// The connections that a case has opened and that still have both ends.
	flows []*flow
	// The number of sends so far. The source port of probes follows from it, so two sends in a row are of different
	// connections.
	round int
	// The probes of the current round. The number of a probe on the wire is first plus its index here.
	sent  []*Probe
	first uint32
	// Packets are built here, to save an allocation for each packet.
	buf []byte
}

// NewFabric makes a fabric on which only the outside is. Every host will listen on the given TCP ports. Call
// [Fabric.Close] when done.
func NewFabric(ports []uint16) (*Fabric, error) {
	network, err := lab.New()
	if err != nil {
		return nil, err
	}
	f := &Fabric{lab: network, ports: ports, hosts: map[types.UID]*host{}, wires: map[string]bool{}, first: 1}
	f.outside, err = f.add("outside", oracle.Key{}, false)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// add makes a host. Close must find the host even if only a part of it could be made, so it is added before the error
// is looked at.
func (f *Fabric) add(name string, key oracle.Key, isMachine bool) (*host, error) {
	h, err := newHost(f.lab, name, key, f.ports, isMachine)
	if h != nil {
		f.all = append(f.all, h)
	}
	return h, err
}

// Close closes all connections and hosts, and removes their namespaces.
func (f *Fabric) Close() error {
	var errs []error
	for _, l := range f.flows {
		errs = append(errs, l.sockets.Close())
	}
	for _, h := range f.all {
		errs = append(errs, h.close())
	}
	return errors.Join(append(errs, f.lab.Close())...)
}

// Sandbox is the sandbox of a pod, as a container runtime reports it: the UID of the pod, the ID of the sandbox, and
// the path of its network namespace.
type Sandbox struct {
	UID       types.UID
	ID, NetNS string
}

// PutPod gives the kernel the interfaces of a pod. Like Multus, it does so before the API server knows of them. It
// returns the sandbox, and false when the pod has no sandbox.
func (f *Fabric) PutPod(p *corev1.Pod) (Sandbox, bool, error) {
	if oracle.IsOutside(p) {
		return Sandbox{}, false, nil // [Fabric.Leave] removes it, after the API server has reported the change
	}
	links := linksOf(p)
	h := f.hosts[p.UID]
	if h == nil {
		key := oracle.Key{Namespace: p.Namespace, Name: p.Name}
		var err error
		if h, err = f.add(key.String(), key, isMachine(p)); err != nil {
			return Sandbox{}, false, err
		}
		f.hosts[p.UID] = h
	}
	// The outside is attached to a wire only once a pod or an outsider is on the wire.
	for _, l := range links {
		if err := f.reach(l.Wire); err != nil {
			return Sandbox{}, false, err
		}
	}
	// A connection whose address is gone can no longer be probed.
	err := errors.Join(h.setLinks(links), f.dropFlows())
	return Sandbox{UID: p.UID, ID: string(p.UID), NetNS: h.pod.NetNS()}, true, err
}

// Leave takes all pods off their wires that are not in the state or have ended, and returns their UIDs.
func (f *Fabric) Leave(state oracle.State) ([]types.UID, error) {
	stay := map[types.UID]bool{}
	for _, p := range oracle.ObjectsOf[*corev1.Pod](state) {
		stay[p.UID] = !oracle.IsOutside(p)
	}
	var left []types.UID
	for uid, h := range f.hosts {
		if stay[uid] {
			continue
		}
		if err := h.leave(); err != nil {
			return nil, err
		}
		delete(f.hosts, uid)
		f.all = slices.DeleteFunc(f.all, func(other *host) bool { return other == h })
		left = append(left, uid)
	}
	if len(left) == 0 {
		return nil, nil
	}
	return left, f.dropFlows()
}

// reach attaches the outside to a wire. The wire of a VLAN is named after its parent wire: "w0.7" is VLAN 7 on w0.
// It does nothing if the outside is there already.
func (f *Fabric) reach(wire string) error {
	if f.wires[wire] {
		return nil
	}
	f.wires[wire] = true
	if parent, _, isVLAN := strings.Cut(wire, "."); isVLAN {
		if err := f.reach(parent); err != nil {
			return err
		}
	}
	iface := outsideIface(wire)
	if err := f.outside.attach(iface, wire, ""); err != nil {
		return err
	}
	// The kernel makes a link-local address some time later; without such an address it sends no IPv6.
	if err := f.outside.AddAddr(iface, netip.PrefixFrom(linkLocal, 64)); err != nil {
		return err
	}
	// The outside also sends from addresses that are not its own, see [Fabric.Spoofed].
	return f.outside.addRoute(iface)
}

// linkLocal is the link-local address of the outside on each wire.
var linkLocal = netip.MustParseAddr("fe80::ff")

// outsideIface is the name of the outside's interface on a wire.
func outsideIface(wire string) string { return "o-" + wire }

// AddOutsider gives the outside a further address on a wire.
func (f *Fabric) AddOutsider(wire string, a netip.Addr) error {
	if err := f.reach(wire); err != nil {
		return err
	}
	links := make([]Link, 0, len(f.outside.links))
	for _, l := range f.outside.links {
		if l.Wire == wire {
			l.Addrs = append(slices.Clone(l.Addrs), a)
		}
		links = append(links, l)
	}
	return f.outside.setLinks(links)
}

// present returns the hosts that are on wires, the outside first. Pods that have left are not among them.
func (f *Fabric) present() []*host {
	hosts := []*host{f.outside}
	for _, h := range f.all {
		if h != f.outside {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// manyPort is the UDP port of multicast and broadcast probes.
// It is a port to which random policies refer, so that some of them allow the probes.
const manyPort = 53

// everybody returns the multicast and broadcast addresses that reach all hosts on the wire of an address: ff02::1 for
// IPv6, 224.0.0.1 and the broadcast address of the /16 for IPv4.
func everybody(a netip.Addr) []netip.Addr {
	if a.Is6() {
		return []netip.Addr{netip.IPv6LinkLocalAllNodes()}
	}
	broadcast := prefixOf(a).Masked().Addr().As4()
	broadcast[2], broadcast[3] = 0xff, 0xff
	return []netip.Addr{netip.AddrFrom4([4]byte{224, 0, 0, 1}), netip.AddrFrom4(broadcast)}
}

// Terminal is an end of a probe: a host, one of its interfaces, the wire, and an address. Terminals are comparable: two
// terminals are equal if all of these are equal.
type Terminal struct {
	host  *host
	iface string
	wire  string
	addr  netip.Addr
}

// isOnSharedWire reports whether the host has another interface on the same wire.
// Where it has, a reply may leave by another interface than the interface on which the connection came in.
func (t Terminal) isOnSharedWire() bool {
	links := 0
	for _, l := range t.host.links {
		if l.Wire == t.wire {
			links++
		}
	}
	return links > 1
}

// Endpoint returns the terminal as the Oracle knows it. An address of the outside belongs to no pod.
func (t Terminal) Endpoint() oracle.Endpoint {
	if t.host.key == (oracle.Key{}) {
		return oracle.Endpoint{Addr: t.addr}
	}
	return oracle.Endpoint{Pod: t.host.key, Iface: t.iface, Addr: t.addr}
}

// Terminals returns a terminal for each address of each host that is present.
func (f *Fabric) Terminals() []Terminal {
	var out []Terminal
	for _, h := range f.present() {
		for _, l := range h.links {
			for _, a := range l.Addrs {
				out = append(out, Terminal{h, l.Iface, l.Wire, a})
			}
		}
	}
	return out
}

// Spoofed returns a terminal of the outside with an address that is not the outside's own. Packets from there are what
// a host on the wire could forge.
func (f *Fabric) Spoofed(wire string, a netip.Addr) Terminal {
	return Terminal{f.outside, outsideIface(wire), wire, a}
}

// leaveTable puts a table into a pod, as another agent might have left it. See [host.leaveTable].
func (f *Fabric) leaveTable(pod oracle.Key) error {
	for _, h := range f.all {
		if h.key == pod {
			return h.leaveTable()
		}
	}
	return fmt.Errorf("no pod %s", pod)
}
