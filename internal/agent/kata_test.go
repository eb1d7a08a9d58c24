package agent

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// TestTrafficControl connects a machine to the interface of the pod as Kata Containers does: filters of traffic control move each
// frame between the interface and a tap device, here a veth. No rule of the pod sees the packets.
func TestTrafficControl(t *testing.T) {
	t.Parallel()
	const tap = "tap0"
	r := newDeviceRig(t, device{"veth", "net1", func(r *deviceRig) error { return r.address("server", "net1", 1) }})
	guest, err := r.Network.Bare("guest")
	if err != nil {
		t.Fatal(err)
	}
	r.Hosts["guest"] = guest
	r.in("server", func() error {
		return onLink("net1", func(net1 netlink.Link) error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = tap
			pair := netlink.NewVeth(attrs)
			pair.PeerName, pair.PeerHardwareAddr = "eth0", net1.Attrs().HardwareAddr // the guest has the MAC address of the pod
			if err := netlink.LinkAdd(pair); err != nil {
				return err
			}
			return errors.Join(
				onLink("eth0", func(l netlink.Link) error { return moveTo(guest, l) }),
				onLink(tap, func(l netlink.Link) error {
					return errors.Join(netlink.LinkSetUp(l), redirect(l, net1), redirect(net1, l))
				}),
			)
		})
	})
	if err := errors.Join(r.address("guest", "eth0", 1), guest.Serve(t.Context(), lab.TCP, 80)); err != nil {
		t.Fatal(err)
	}
	r.StartRuntime("server")
	r.Load(r.withPolicy("net", "Ingress, Egress"))
	r.start()
	r.IsEnforced(true)
	r.wantVerdict("stranger", "10.9.0.1:80", lab.TCP, lab.Allowed)
	r.wantVerdict("guest", "10.9.0.3:80", lab.UDP, lab.Allowed)
}

// redirect moves what arrives at one interface to the other, out of it.
func redirect(from, to netlink.Link) error {
	index := from.Attrs().Index
	return errors.Join(
		netlink.QdiscAdd(&netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: index, Parent: netlink.HANDLE_INGRESS, Handle: netlink.MakeHandle(0xffff, 0),
		}}),
		netlink.FilterAdd(&netlink.U32{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.MakeHandle(0xffff, 0), Protocol: unix.ETH_P_ALL, Priority: 1},
			Actions:     []netlink.Action{netlink.NewMirredAction(to.Attrs().Index)},
		}),
	)
}
