package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// guestLink is the interface of a virtual machine.
const guestLink = "eth0"

// VirtualMachine returns a host in the place of a virtual machine in the pod. It changes the interface of the pod like KubeVirt
// for the bridge binding (bridgeBindingSpec in pkg/network/setup/netpod/netpod.go of kubevirt/kubevirt):
//
//   - the interface loses its addresses, gets the name NAME-nic, and becomes a port of the new bridge k6t-NAME, without learning;
//   - the tap device of the virtual machine becomes the other port. Here it is a veth pair with eth0 of the virtual machine as
//     its other end. eth0 gets the hardware address and the addresses of the interface;
//   - a dummy gets the name and the addresses of the interface, and the pod answers no ARP for them. This step is left out if the
//     kernel has no dummy devices.
//
// The result:
//
//	pod                                     guest
//	net1-nic ─ k6t-net1 ─ tap-net1 ──────── eth0
//	net1 (dummy)
func (h *Host) VirtualMachine(ifname string) (*Host, error) {
	guest, err := h.lab.Bare(h.Name + "-guest")
	if err != nil {
		return nil, err
	}
	return guest, h.BindBridge(guest, ifname, guestLink)
}

// BindBridge makes the interface of the pod a port of a bridge, and connects the guest, which has the interface inside, with the
// bridge. See VirtualMachine.
// guest may be any host of the lab. Its interface gets the name inside.
func (h *Host) BindBridge(guest *Host, ifname, inside string) error {
	if err := h.bind(guest, ifname, inside); err != nil {
		return fmt.Errorf("virtual machine in %s: %w", h.Name, err)
	}
	return nil
}

// UnbindBridge removes the interface, its bridge and the interface of the guest.
// It leaves the pod without the interface, as if it had been unplugged.
func (h *Host) UnbindBridge(ifname string) error {
	err := errors.Join(h.Detach("tap-"+ifname), h.Detach("k6t-"+ifname), h.Detach(ifname+"-nic"))
	if _, find := h.ns.handle.LinkByName(ifname); find == nil { // the dummy
		err = errors.Join(err, h.Detach(ifname))
	}
	return err
}

// bind is BindBridge without the context of errors. The steps come in the order of KubeVirt.
func (h *Host) bind(guest *Host, ifname, inside string) error {
	pod := h.ns.handle
	link, err := pod.LinkByName(ifname)
	if err != nil {
		return err
	}
	// The addresses are read first: the interface loses them when it becomes a port.
	addrs, err := pod.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = "k6t-" + ifname
	mac := link.Attrs().HardwareAddr
	if err := pod.LinkAdd(bridge); err != nil {
		return err
	}
	if err := h.enslave(link, bridge, ifname+"-nic"); err != nil {
		return err
	}
	tap := netlink.NewVeth(netlink.NewLinkAttrs())
	tap.Name, tap.PeerName, tap.PeerHardwareAddr = "tap-"+ifname, inside, mac
	tap.Index, tap.MasterIndex = firstPortIndex+bridge.Index, bridge.Index // see plug
	tap.PeerNamespace = netlink.NsFd(int(guest.ns.handleFD()))
	if err := pod.LinkAdd(tap); err != nil {
		return err
	}
	end, err := guest.ns.handle.LinkByName(inside)
	if err != nil {
		return err
	}
	err = errors.Join(pod.LinkSetUp(bridge), pod.LinkSetUp(tap), guest.ns.handle.LinkSetUp(end), h.ns.waitUp(tap.Name), guest.ns.waitUp(inside))
	for _, a := range addrs {
		// Link-local addresses belong to the interface. The guest's interface makes its own.
		if a.Scope == unix.RT_SCOPE_UNIVERSE {
			err = errors.Join(err, guest.AddAddr(inside, prefixOf(a.IPNet)))
		}
	}
	return errors.Join(err, h.standIn(ifname, addrs))
}

// enslave renames the interface and makes it a port of the bridge.
// bridge gets the index and the hardware address that the kernel chose.
func (h *Host) enslave(link netlink.Link, bridge *netlink.Bridge, name string) error {
	pod := h.ns.handle
	made, err := pod.LinkByName(bridge.Name)
	if err != nil {
		return err
	}
	// The index and the hardware address are known only once the kernel has made the bridge.
	*bridge = *made.(*netlink.Bridge)
	return errors.Join(
		pod.LinkSetDown(link), // also removes the IPv6 addresses
		h.dropAddrs(link),
		pod.LinkSetName(link, name),
		pod.LinkSetHardwareAddr(link, bridge.HardwareAddr),
		pod.LinkSetMaster(link, bridge),
		pod.LinkSetLearning(link, false),
		pod.LinkSetUp(link),
	)
}

// dropAddrs removes the IPv4 addresses, which stay when an interface is set down.
func (h *Host) dropAddrs(link netlink.Link) error {
	addrs, err := h.ns.handle.AddrList(link, netlink.FAMILY_V4)
	for i := range addrs {
		err = errors.Join(err, h.ns.handle.AddrDel(link, &addrs[i]))
	}
	return err
}

// standIn makes the dummy with the name and the addresses of the interface.
// A kernel without dummy devices makes none; the pod then has no interface of the name.
func (h *Host) standIn(ifname string, addrs []netlink.Addr) error {
	dummy := &netlink.Dummy{LinkAttrs: netlink.NewLinkAttrs()}
	dummy.Name = ifname
	if err := h.ns.handle.LinkAdd(dummy); errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	} else if err != nil {
		return err
	}
	err := h.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/conf/all/arp_ignore", []byte("1"), 0) })
	for _, a := range addrs {
		if a.Scope == unix.RT_SCOPE_UNIVERSE && a.IP.To4() != nil {
			err = errors.Join(err, h.AddAddr(ifname, prefixOf(&net.IPNet{IP: a.IP, Mask: net.CIDRMask(32, 32)})))
		}
	}
	link, find := h.ns.handle.LinkByName(ifname)
	if find != nil {
		return errors.Join(err, find)
	}
	return errors.Join(err, h.ns.handle.LinkSetUp(link))
}

// prefixOf turns a prefix of the net package into a prefix of netip.
func prefixOf(n *net.IPNet) netip.Prefix {
	addr, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits)
}

// Tag adds a VLAN device with the addresses to an interface of the host. It returns false if the kernel does not support VLANs.
// A name is that of the parent, a dot and the number: net1.5.
func (h *Host) Tag(ifname string, vlan int, prefixes ...netip.Prefix) (ok bool, err error) {
	parent, err := h.ns.handle.LinkByName(ifname)
	if err != nil {
		return false, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = fmt.Sprintf("%s.%d", ifname, vlan), parent.Attrs().Index
	link := &netlink.Vlan{LinkAttrs: attrs, VlanId: vlan}
	if err := h.ns.handle.LinkAdd(link); errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("add %s to %s: %w", attrs.Name, h.Name, err)
	}
	made, err := h.ns.handle.LinkByName(attrs.Name)
	if err == nil {
		err = h.ns.handle.LinkSetUp(made)
	}
	for _, p := range prefixes {
		err = errors.Join(err, h.AddAddr(attrs.Name, p))
	}
	return true, err
}
