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
)

// The devices that an interface of a pod can be or be a port of, apart from an ordinary interface. With Bridge the pod is a
// virtual machine with bridge binding: its packets come from another network namespace, behind a bridge in the pod.
const (
	VRF    = "vrf"    // the interface is a port of a VRF
	Bond   = "bond"   // the interface is a bond with two ports
	Bridge = "bridge" // the interface is a port of a bridge
)

// virtualMachineLabel is on the pods of virtual machines.
const virtualMachineLabel = "kubevirt.io"

// AddDevices returns a random case in which some interfaces are other devices, and some open connections are of SCTP. The kinds are
// devices and "sctp". A pod keeps its devices through the case.
func AddDevices(c Case, kinds []string) Case {
	steps := slices.Clone(c.Steps)
	for i := range steps {
		steps[i].Events = slices.Clone(steps[i].Events)
		for j := range steps[i].Events {
			e := &steps[i].Events[j]
			if pod, ok := e.Put.(*corev1.Pod); ok {
				e.Put = withDevices(pod, kinds)
			}
			if e.Open != nil && slices.Contains(kinds, SCTP.String()) {
				e.Open = e.Open.and(service{SCTP, e.Open.Services[0].port})
			}
		}
	}
	c.Steps = steps
	return c
}

func withDevices(pod *corev1.Pod, kinds []string) *corev1.Pod {
	pod = pod.DeepCopy()
	choose := func(name string, of uint32) uint32 { return crc32.ChecksumIEEE([]byte(name)) % of }
	links := annotatedLinks(pod)
	becomesMachine := slices.Contains(kinds, Bridge) && choose(string(pod.UID), 5) == 0
	if becomesMachine {
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

// isMachine reports whether a pod is a virtual machine. It may get its first interface later.
func isMachine(p *corev1.Pod) bool {
	isBridged := func(l Link) bool { return l.Device == Bridge }
	return p.Labels[virtualMachineLabel] != "" || slices.ContainsFunc(linksOf(p), isBridged)
}

// hidesDrops reports whether a send on the interface succeeds although the rules of the pod drop the packet.
func (t Terminal) hidesDrops() bool { return t.device() == VRF || t.host.pod != t.host.Host }

func (t Terminal) device() string {
	for _, l := range t.host.links {
		if l.Iface == t.iface {
			return l.Device
		}
	}
	return ""
}

// socketDevice returns the device that sockets of the interface must be bound to; empty: to none.
func (t Terminal) socketDevice() string {
	if t.device() == VRF {
		return vrfOf(t.iface)
	}
	return ""
}

func vrfOf(iface string) string { return "vrf-" + iface }

func bondPorts(iface string) []string { return []string{iface + "-p1", iface + "-p2"} }

// attachDevice attaches the host to a wire by a device.
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
func (h *host) enslaveToVRF(iface string) error {
	link, err := h.handle.LinkByName(iface)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = vrfOf(iface)
	if err := h.handle.LinkAdd(&netlink.Vrf{LinkAttrs: attrs, Table: 100 + uint32(link.Attrs().Index)}); err != nil {
		return err
	}
	master, err := h.handle.LinkByName(attrs.Name)
	if err != nil {
		return err
	}
	h.indexes[master.Attrs().Index] = iface
	accept := func() error { return os.WriteFile("/proc/sys/net/ipv4/tcp_l3mdev_accept", []byte("1"), 0) }
	return errors.Join(h.handle.LinkSetUp(master), h.handle.LinkSetMaster(link, master), h.Do(accept))
}

// attachBond makes a bond with two ports on a bridge.
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
