package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// The ends of a link. The client sends packets with any source address; answers go to the client's hardware address.
var (
	serverAddr = net.IPNet{IP: net.IPv4(192, 168, 255, 2).To4(), Mask: net.CIDRMask(24, 32)}
	gateway    = net.IPv4(192, 168, 255, 1).To4()
)

// link is a veth pair from a client's namespace to a pod's net1.
type link struct {
	// The namespaces. Each has its own connection tracking, so lanes do not share entries.
	client, server *lab.Host
	index          int // interface index of the client's end
	// The hardware addresses of the client's and the server's end.
	from, to net.HardwareAddr
}

// newLink creates both namespaces and the pair. The server is ready to answer; the client has no address, as its
// packets are made by hand.
func newLink(l *lab.Lab) (*link, error) {
	k := &link{}
	var err error
	if k.client, err = l.Bare("client"); err != nil {
		return nil, err
	}
	if k.server, err = l.Bare("server"); err != nil {
		return nil, err
	}
	if err := k.client.Do(k.addPair); err != nil {
		return nil, err
	}
	return k, k.server.Do(k.configureServer)
}

// addPair creates the pair from the client's namespace, with the other end in the server's.
func (k *link) addPair() error {
	netns, err := os.Open(k.server.NetNS())
	if err != nil {
		return err
	}
	defer netns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "net1"
	veth := netlink.NewVeth(attrs)
	veth.PeerName = "net1"
	veth.PeerNamespace = netlink.NsFd(int(netns.Fd()))
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth pair: %w", err)
	}
	// The kernel chose the index and the hardware address.
	made, err := netlink.LinkByName("net1")
	if err != nil {
		return err
	}
	k.index, k.from = made.Attrs().Index, made.Attrs().HardwareAddr
	return netlink.LinkSetUp(made)
}

// configureServer gives net1 an address, and a route for all other addresses over the client. The neighbor entry is
// permanent, so no ARP is necessary: no process in the client's namespace would answer it.
func (k *link) configureServer() error {
	net1, err := netlink.LinkByName("net1")
	if err != nil {
		return err
	}
	k.to = net1.Attrs().HardwareAddr
	index := net1.Attrs().Index
	return errors.Join(
		netlink.LinkSetUp(net1),
		netlink.AddrAdd(net1, &netlink.Addr{IPNet: &serverAddr}),
		netlink.NeighAdd(&netlink.Neigh{LinkIndex: index, IP: gateway, HardwareAddr: k.from, State: netlink.NUD_PERMANENT}),
		netlink.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gateway}),
	)
}

// forgetFlows deletes all entries of the server's connection tracking.
// The next packet of each flow is the first packet of a new connection then.
func (k *link) forgetFlows() error {
	return k.server.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
}
