package conformance

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// tableName is the name of the agent's nftables table. It is a contract with users, so the tests spell it out.
const tableName = "multi_networkpolicy"

// Link is an interface as the kernel has it, whatever the pod's network status says.
type Link struct {
	// The name may be that of a VLAN device: "net1.7" is VLAN 7 on net1.
	Iface string `json:"iface"`
	// The wire that the interface is on. Interfaces on a wire reach each other.
	Wire   string       `json:"wire"`
	Device string       `json:"device,omitempty"` // [VRF], [Bond] or [Bridge]; empty: an ordinary interface
	Addrs  []netip.Addr `json:"addrs,omitempty"`
}

// hostSettings make the fate of a packet follow from its addresses and the rules alone. An interface answers ARP only
// for its own addresses, also where another interface is on the same wire. The kernel accepts packets whose source is
// an address of the host itself, so that the rules must drop them.
var hostSettings = map[string]string{
	"rp_filter":           "0",
	"arp_ignore":          "1",
	"arp_announce":        "2",
	"accept_local":        "1",
	"promote_secondaries": "1", // the first address of an interface goes alone
}

// host is a network namespace that sends and receives probes: a pod, the virtual machine in a pod, or the outside.
type host struct {
	*lab.Host
	// The namespace that the agent sees. It is the same namespace, unless the host is a virtual machine behind the pod.
	pod    *lab.Host
	key    oracle.Key // zero: the outside
	handle *netlink.Handle
	// The interfaces in the order in which they were attached.
	links   []Link
	indexes map[int]string // names of interfaces by index, as received packets report them; a VRF has the name of its port

	senders map[sender]int // descriptors of raw sockets, opened at the first use
	// The raw sockets on which probes arrive.
	receivers []receiver
	// The TCP listeners that answer SYNs.
	listeners []int
	marks     map[string]uint32 // number of the last marker that arrived, by interface
}

// sender identifies a raw socket: it sends packets of an IP family on an interface.
type sender struct {
	iface string
	v6    bool
}

// newHost makes a namespace, and for a virtual machine a second namespace for its pod. A host that is returned with an
// error must be closed.
func newHost(l *lab.Lab, name string, key oracle.Key, ports []uint16, isMachine bool) (*host, error) {
	made, err := l.Bare(name)
	pod := made
	if err == nil && isMachine {
		pod, err = l.Bare(name + "-pod")
	}
	if err != nil {
		return nil, err
	}
	h := &host{Host: made, pod: pod, key: key, indexes: map[int]string{}, senders: map[sender]int{}, marks: map[string]uint32{}}
	err = h.Do(func() error {
		for _, conf := range []string{"all", "default"} {
			for name, value := range hostSettings {
				if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+conf+"/"+name, []byte(value), 0); err != nil {
					return err
				}
			}
		}
		var err error
		h.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, err
	}
	return h, h.listen(ports)
}

// close closes the sockets. The lab removes the namespace.
func (h *host) close() error {
	// The kernel has one limit for the neighbors of all namespaces, and the namespace may stay for long.
	errs := []error{h.forgetNeighbors()}
	for _, fd := range h.senders {
		errs = append(errs, unix.Close(fd))
	}
	for _, r := range h.receivers {
		errs = append(errs, unix.Close(r.fd))
	}
	for _, fd := range h.listeners {
		errs = append(errs, unix.Close(fd))
	}
	h.handle.Close()
	return errors.Join(errs...)
}

// setLinks changes the interfaces until they are the given ones. Interfaces that stay are not touched, and their
// connections survive.
// An interface that moves to another wire is detached and attached again.
func (h *host) setLinks(want []Link) error {
	for _, l := range slices.Clone(h.links) {
		i := slices.IndexFunc(want, func(w Link) bool { return w.Iface == l.Iface && w.Wire == l.Wire && w.Device == l.Device })
		if i < 0 {
			if err := h.detach(l); err != nil {
				return err
			}
			continue
		}
		for _, a := range l.Addrs {
			if !slices.Contains(want[i].Addrs, a) {
				if err := h.removeAddr(l.Iface, a); err != nil {
					return err
				}
			}
		}
	}
	for _, w := range want {
		i := slices.IndexFunc(h.links, func(l Link) bool { return l.Iface == w.Iface })
		if i < 0 {
			if err := h.attach(w.Iface, w.Wire, w.Device); err != nil {
				return err
			}
			i = len(h.links) - 1
		}
		for _, a := range w.Addrs {
			if !slices.Contains(h.links[i].Addrs, a) {
				if err := h.AddAddr(w.Iface, prefixOf(a)); err != nil {
					return err
				}
			}
		}
		h.links[i].Addrs = slices.Clone(w.Addrs)
	}
	return nil
}

// prefixOf returns an address with the length of its subnet: each wire has a /16 of its own for IPv4 and a /64 for
// IPv6.
// The length decides which addresses are on the link.
func prefixOf(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(a, 16)
	}
	return netip.PrefixFrom(a, 64)
}

// attach makes an interface on a wire and records it.
// The interface has no address yet.
func (h *host) attach(iface, wire, device string) error {
	var err error
	parent, id, isVLAN := strings.Cut(iface, ".")
	switch {
	case isVLAN:
		err = h.attachVLAN(parent, iface, id)
	case device != "":
		err = h.attachDevice(iface, wire, device)
	default:
		err = h.Attach("br-"+wire, iface)
	}
	if err != nil {
		return err
	}
	link, err := h.handle.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("find %s of %s: %w", iface, h.Name, err)
	}
	h.indexes[link.Attrs().Index] = iface
	h.links = append(h.links, Link{Iface: iface, Wire: wire, Device: device})
	return nil
}

// attachVLAN makes a VLAN device on an interface. Its frames cross the wire of the interface with a tag.
// The parent must exist.
func (h *host) attachVLAN(parent, iface, id string) error {
	n, err := strconv.Atoi(id)
	if err != nil {
		return fmt.Errorf("VLAN device %s: %w", iface, err)
	}
	link, err := h.handle.LinkByName(parent)
	if err == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.ParentIndex = iface, link.Attrs().Index
		vlan := &netlink.Vlan{LinkAttrs: attrs, VlanId: n}
		if err = h.handle.LinkAdd(vlan); err == nil {
			err = h.handle.LinkSetUp(vlan)
		}
	}
	if err != nil {
		return fmt.Errorf("make VLAN device %s of %s: %w", iface, h.Name, err)
	}
	return nil
}

// addRoute makes all IPv6 addresses reachable on an interface. Without the route, the kernel sends no packet with a
// source that is not the host's. For IPv4, a socket that is bound to an interface needs no route.
// The outside needs it for forged sources.
func (h *host) addRoute(iface string) error {
	link, err := h.handle.LinkByName(iface)
	if err == nil {
		err = h.handle.RouteAdd(&netlink.Route{
			LinkIndex: link.Attrs().Index,
			Dst:       &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
			Priority:  link.Attrs().Index, // two routes to the same must differ
		})
	}
	if err != nil {
		return fmt.Errorf("add a route on %s of %s: %w", iface, h.Name, err)
	}
	return nil
}

// detach removes an interface. Its sockets are closed first: a new interface of the same name has another index, to
// which the old sockets are not bound.
// The connections of the interface end with it, see Fabric.dropFlows.
func (h *host) detach(link Link) error {
	iface := link.Iface
	for _, v6 := range []bool{false, true} {
		if fd, ok := h.senders[sender{iface, v6}]; ok {
			delete(h.senders, sender{iface, v6})
			if err := unix.Close(fd); err != nil {
				return err
			}
		}
	}
	h.links = slices.DeleteFunc(h.links, func(l Link) bool { return l.Iface == iface })
	return h.detachDevice(iface, link.Device)
}

// removeAddr removes an address from an interface.
// The address must be there.
func (h *host) removeAddr(iface string, a netip.Addr) error {
	link, err := h.handle.LinkByName(iface)
	if err == nil {
		p := prefixOf(a)
		mask := net.CIDRMask(p.Bits(), a.BitLen())
		err = h.handle.AddrDel(link, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: mask}})
	}
	if err != nil {
		return fmt.Errorf("remove %s from %s of %s: %w", a, iface, h.Name, err)
	}
	return nil
}

// leave removes all addresses, as if the host were gone, and closes its sockets. It does not wait until the interfaces
// are removed, because the kernel takes long to remove an interface.
// The host must not be used afterwards.
func (h *host) leave() error {
	for i := range h.links {
		for _, a := range h.links[i].Addrs {
			if err := h.removeAddr(h.links[i].Iface, a); err != nil {
				return err
			}
		}
	}
	return h.close()
}

// forgetNeighbors deletes the neighbor entries, because an address may have moved to another host. It also makes room:
// the kernel has one limit for the neighbors of all namespaces.
func (h *host) forgetNeighbors() error {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		neighbors, err := h.handle.NeighList(0, family)
		if err != nil {
			return fmt.Errorf("list the neighbors of %s: %w", h.Name, err)
		}
		for i := range neighbors {
			if neighbors[i].State&unix.NUD_PERMANENT != 0 {
				continue
			}
			if err := h.handle.NeighDel(&neighbors[i]); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("delete a neighbor of %s: %w", h.Name, err)
			}
		}
	}
	return nil
}

// hasTable reports whether the pod has a table of the agent's name. It asks the kernel and not the agent.
func (h *host) hasTable() (bool, error) {
	err := h.pod.Do(func() error {
		get := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETTABLE, 0)
		get.AddData(&nl.Nfgenmsg{NfgenFamily: unix.NFPROTO_INET, Version: unix.NFNETLINK_V0})
		get.AddData(nl.NewRtAttr(unix.NFTA_TABLE_NAME, nl.ZeroTerminated(tableName)))
		_, err := get.Execute(unix.NETLINK_NETFILTER, 0)
		return err
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("ask for the table: %w", err)
	}
	return true, nil
}
