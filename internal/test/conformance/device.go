package conformance

import (
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// The devices that an interface of a pod can be or be a port of, apart from an ordinary interface. With Bridge the pod is a
// virtual machine with bridge binding: its packets come from another network namespace, behind a bridge in the pod.
const (
	VRF    = "vrf"    // the interface is a port of a VRF
	Bond   = "bond"   // the interface is a bond with two ports
	Bridge = "bridge" // the interface is a port of a bridge
)

// virtualMachineLabel is on the pods of virtual machines: KubeVirt sets it, and the agent recognizes virtual machines
// by it.
const virtualMachineLabel = "kubevirt.io"

// AddDevices returns a random case in which some interfaces are other devices, and some open connections are of SCTP.
// The kinds are the devices and "sctp" that the kernel has. A pod keeps its devices through the case.
//
// The choice follows from hashes of UIDs and not from the generator's random numbers: so the same seed gives the same case on
// every kernel, apart from the devices, and a fault on one kernel can be compared with another kernel.
func AddDevices(c Case, kinds []string) Case {
	steps := slices.Clone(c.Steps)
	for i := range steps {
		steps[i].Events = slices.Clone(steps[i].Events)
		for j := range steps[i].Events {
			e := &steps[i].Events[j]
			if pod, ok := e.Put.(*corev1.Pod); ok {
				e.Put = withDevices(pod, kinds)
			}
			if e.Open != nil && slices.Contains(kinds, oracle.SCTP.String()) {
				e.Open = e.Open.and(service{oracle.SCTP, e.Open.Services[0].port})
			}
		}
	}
	c.Steps = steps
	return c
}

// withDevices returns a copy of a pod with devices on some interfaces: of five pods one is a virtual machine, of four
// interfaces of the other pods one is a port of a VRF and one a bond. The choice is a function of the UID and the
// interface, so all versions of a pod agree.
func withDevices(pod *corev1.Pod, kinds []string) *corev1.Pod {
	pod = pod.DeepCopy()
	choose := func(name string, of uint32) uint32 { return crc32.ChecksumIEEE([]byte(name)) % of }
	links := annotatedLinks(pod)
	becomesMachine := slices.Contains(kinds, Bridge) && choose(string(pod.UID), 5) == 0
	if becomesMachine {
		// A label that the pod has itself wins over the added label.
		labels := map[string]string{virtualMachineLabel: "virt-launcher"}
		maps.Copy(labels, pod.Labels)
		pod.Labels = labels
	}
	for i := range links {
		device := ""
		switch n := choose(string(pod.UID)+links[i].Iface, 4); {
		case becomesMachine:
			device = Bridge
		case n == 0:
			device = VRF
		case n == 1:
			device = Bond
		}
		if slices.Contains(kinds, device) {
			links[i].Device = device
		}
	}
	setLinks(pod, links)
	return pod
}

// isMachine reports whether a pod is a virtual machine. The label counts as well as the interfaces: a virtual machine
// may get its first interface only later, and its namespaces are made once.
func isMachine(p *corev1.Pod) bool {
	isBridged := func(l Link) bool { return l.Device == Bridge }
	return p.Labels[virtualMachineLabel] != "" || slices.ContainsFunc(linksOf(p), isBridged)
}

// hidesDrops reports whether a send on the interface succeeds although the rules of the pod drop the packet.
// A sender in a VRF or in a virtual machine does not get EPERM when the rules drop a packet. So a probe from there
// shows only whether the packet arrives.
func (t Terminal) hidesDrops() bool { return t.device() == VRF || t.host.pod != t.host.Host }

// device returns the device of the terminal's interface, empty for an ordinary interface.
func (t Terminal) device() string {
	for _, l := range t.host.links {
		if l.Iface == t.iface {
			return l.Device
		}
	}
	return ""
}

// socketDevice returns the device to which sockets of the interface must be bound, empty for none. A socket outside a
// VRF would not use the VRF's routes.
func (t Terminal) socketDevice() string {
	if t.device() == VRF {
		return vrfOf(t.iface)
	}
	return ""
}

// vrfOf returns the name of the VRF of an interface.
func vrfOf(iface string) string { return "vrf-" + iface }

// bondPorts returns the names of the ports of a bond.
func bondPorts(iface string) []string { return []string{iface + "-p1", iface + "-p2"} }

// attachDevice attaches the host to a wire by a device. For [Bridge], the port on the wire is in the pod's namespace,
// and the interface that sends is in the virtual machine's namespace, behind the bridge.
// The interface has no address yet.
func (h *host) attachDevice(iface, wire, device string) error {
	bridge := "br-" + wire
	switch device {
	case VRF:
		return errors.Join(h.Attach(bridge, iface), h.enslaveToVRF(iface))
	case Bond:
		return h.attachBond(iface, bridge)
	case Bridge:
		return errors.Join(h.pod.Attach(bridge, iface), h.pod.BindBridge(h.Host, iface, iface))
	}
	return fmt.Errorf("unknown device %q", device)
}

// enslaveToVRF makes the interface a port of a VRF with routes of its own.
// Each interface has a VRF of its own.
func (h *host) enslaveToVRF(iface string) error {
	link, err := h.handle.LinkByName(iface)
	if err != nil {
		return err
	}
	// The number of the table must differ between the VRFs of a host; the index of the interface does.
	attrs := netlink.NewLinkAttrs()
	attrs.Name = vrfOf(iface)
	if err := h.handle.LinkAdd(&netlink.Vrf{LinkAttrs: attrs, Table: 100 + uint32(link.Attrs().Index)}); err != nil {
		return err
	}
	master, err := h.handle.LinkByName(attrs.Name)
	if err != nil {
		return err
	}
	// Packets that come in on a VRF are reported on the VRF's own device. Probes name the interface.
	h.indexes[master.Attrs().Index] = iface
	// The setting lets a listener that is bound to no device answer connections from inside a VRF.
	accept := func() error { return os.WriteFile("/proc/sys/net/ipv4/tcp_l3mdev_accept", []byte("1"), 0) }
	return errors.Join(h.handle.LinkSetUp(master), h.handle.LinkSetMaster(link, master), h.Do(accept))
}

// attachBond makes a bond with two ports on a bridge, in active-backup mode, so that the bridge sees one address on one
// port. A bond needs its ports to be down when they are added.
// It returns when the bond carries packets, or with an error after patience.
func (h *host) attachBond(iface, bridge string) error {
	bond := netlink.NewLinkBond(netlink.NewLinkAttrs())
	bond.Name, bond.Mode, bond.Miimon = iface, netlink.BOND_MODE_ACTIVE_BACKUP, 10
	if err := h.handle.LinkAdd(bond); err != nil {
		return err
	}
	master, err := h.handle.LinkByName(iface)
	for _, port := range bondPorts(iface) {
		if err == nil {
			err = h.Attach(bridge, port)
		}
		var link netlink.Link
		if err == nil {
			link, err = h.handle.LinkByName(port)
		}
		if err == nil {
			err = errors.Join(h.handle.LinkSetDown(link), h.handle.LinkSetMaster(link, master), h.handle.LinkSetUp(link))
		}
	}
	if err != nil {
		return err
	}
	if err := h.handle.LinkSetUp(master); err != nil {
		return err
	}
	// A bond carries packets only once its link monitor (miimon, in milliseconds) has seen a port that is up.
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		link, err := h.handle.LinkByName(iface)
		switch {
		case err != nil:
			return err
		case link.Attrs().OperState == netlink.OperUp:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("bond %s of %s stays %s", iface, h.Name, link.Attrs().OperState)
		}
	}
}

// detachDevice removes a device and its parts.
// A VRF outlives its ports, and the ports of a bond outlive the bond. So each part is removed by itself.
func (h *host) detachDevice(iface, device string) error {
	switch device {
	case VRF:
		return errors.Join(h.Detach(iface), h.Detach(vrfOf(iface)))
	case Bond:
		err := h.Detach(iface)
		for _, port := range bondPorts(iface) {
			err = errors.Join(err, h.Detach(port))
		}
		return err
	case Bridge:
		return h.pod.UnbindBridge(iface)
	}
	return h.Detach(iface)
}
