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
)

// linksAnnotation is on every pod: its interfaces as the kernel has them, a list of Link. The agent does not read it.
const linksAnnotation = "conformance/links"

// linksOf returns the interfaces that the kernel has for a pod: none once it has ended, or on the host's network.
func linksOf(p *corev1.Pod) []Link {
	if isOutside(p) {
		return nil
	}
	return annotatedLinks(p)
}

// annotatedLinks returns what is written on a pod.
func annotatedLinks(p *corev1.Pod) []Link {
	var links []Link
	if raw := p.Annotations[linksAnnotation]; raw != "" {
		if err := json.Unmarshal([]byte(raw), &links); err != nil {
			panic(fmt.Sprintf("%s of %s/%s: %v", linksAnnotation, p.Namespace, p.Name, err)) // setLinks wrote it
		}
	}
	return links
}

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

// Fabric is the kernel's side of a case: a network namespace for each pod, one for the world outside, and the wires.
type Fabric struct {
	lab     *lab.Lab
	ports   []uint16
	hosts   map[types.UID]*host
	outside *host
	all     []*host         // in the order in which they came
	wires   map[string]bool // the outside is on these
	flows   []*flow
	round   int
	sent    []*Probe // of the round, by number
	first   uint32   // number of the first of them
	buf     []byte
}

// NewFabric makes a fabric with nobody but the outside on it. Hosts listen on the TCP ports.
func NewFabric(ports []uint16) (*Fabric, error) {
	network, err := lab.New()
	if err != nil {
		return nil, err
	}
	f := &Fabric{lab: network, ports: ports, hosts: map[types.UID]*host{}, wires: map[string]bool{}, first: 1}
	f.outside, err = f.add("outside", Key{}, false)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (f *Fabric) add(name string, key Key, isMachine bool) (*host, error) {
	h, err := newHost(f.lab, name, key, f.ports, isMachine)
	if h != nil {
		f.all = append(f.all, h)
	}
	return h, err
}

// Close lets go of everything.
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

// Sandbox is where the pod of a UID runs.
type Sandbox struct {
	UID       types.UID
	ID, NetNS string
}

// PutPod makes the kernel have what a pod has, before the API server says so, as Multus would. It returns the sandbox,
// and false when the pod has none.
func (f *Fabric) PutPod(p *corev1.Pod) (Sandbox, bool, error) {
	if isOutside(p) {
		return Sandbox{}, false, nil // it leaves when the API server has said so
	}
	links := linksOf(p)
	h := f.hosts[p.UID]
	if h == nil {
		key := Key{Namespace: p.Namespace, Name: p.Name}
		var err error
		if h, err = f.add(key.String(), key, isMachine(p)); err != nil {
			return Sandbox{}, false, err
		}
		f.hosts[p.UID] = h
	}
	for _, l := range links {
		if err := f.reach(l.Wire); err != nil {
			return Sandbox{}, false, err
		}
	}
	err := errors.Join(h.setLinks(links), f.dropFlows())
	return Sandbox{UID: p.UID, ID: string(p.UID), NetNS: h.pod.NetNS()}, true, err
}

// Leave takes the pods that are not among those off their wires, and returns their UIDs.
func (f *Fabric) Leave(state State) ([]types.UID, error) {
	stay := map[types.UID]bool{}
	for _, p := range objectsOf[*corev1.Pod](state) {
		stay[p.UID] = !isOutside(p)
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

// reach connects the outside to a wire. A VLAN has the name of its wire, a point, and its number.
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
	return f.outside.addRoute(iface)
}

// linkLocal is the link-local address of the outside on each wire.
var linkLocal = netip.MustParseAddr("fe80::ff")

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

// present are the hosts on the wires, the outside first.
func (f *Fabric) present() []*host {
	hosts := []*host{f.outside}
	for _, h := range f.all {
		if h != f.outside {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// manyPort is the port of packets to everybody on a wire.
const manyPort = 53

// everybody returns the multicast and broadcast addresses that reach all hosts on the wire of an address.
func everybody(a netip.Addr) []netip.Addr {
	if a.Is6() {
		return []netip.Addr{netip.IPv6LinkLocalAllNodes()}
	}
	broadcast := prefixOf(a).Masked().Addr().As4()
	broadcast[2], broadcast[3] = 0xff, 0xff
	return []netip.Addr{netip.AddrFrom4([4]byte{224, 0, 0, 1}), netip.AddrFrom4(broadcast)}
}

// Terminal is an end of a probe: a host, an interface of it, and an address.
type Terminal struct {
	host  *host
	iface string
	wire  string
	addr  netip.Addr
}

// isOnSharedWire reports whether the host has another interface on the same wire.
func (t Terminal) isOnSharedWire() bool {
	links := 0
	for _, l := range t.host.links {
		if l.Wire == t.wire {
			links++
		}
	}
	return links > 1
}

// Endpoint is what the Oracle knows of it.
func (t Terminal) Endpoint() Endpoint {
	if t.host.key == (Key{}) {
		return Endpoint{Addr: t.addr}
	}
	return Endpoint{Pod: t.host.key, Iface: t.iface, Addr: t.addr}
}

// Terminals returns all there are.
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

// Spoofed is the outside on a wire with an address that is not its own.
func (f *Fabric) Spoofed(wire string, a netip.Addr) Terminal {
	return Terminal{f.outside, outsideIface(wire), wire, a}
}

// leaveTable puts a table that another agent left into a pod.
func (f *Fabric) leaveTable(pod Key) error {
	for _, h := range f.all {
		if h.key == pod {
			return h.leaveTable()
		}
	}
	return fmt.Errorf("no pod %s", pod)
}
