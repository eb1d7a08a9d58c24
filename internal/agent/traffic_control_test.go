package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// sendOnlyToFriend lets the server send to the friend alone.
const sendOnlyToFriend = `
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: p, uid: p,
  annotations: {k8s.v1.cni.cncf.io/policy-for: net}}, spec: {podSelector: {matchLabels: {app: server}}, policyTypes: [Egress],
    egress: [{to: [{podSelector: {matchLabels: {app: friend}}}]}]}}
`

// ingressQdisc is the queueing discipline of a link that has the filters of multi-networkpolicy-tc.
func ingressQdisc(link netlink.Link) netlink.Qdisc {
	return &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS,
	}}
}

// addFilters adds the filters of multi-networkpolicy-tc for sendOnlyToFriend. Its generator (commit 1bdd521) makes of an egress rule
// for UDP port 7000 of 10.8.0.20, apart from the same for VLANs and with "drop" for IPv6:
//
//	filter add dev REP ingress protocol ip pref 300 flower action gact drop
//	filter add dev REP ingress protocol ip pref 200 flower ip_proto udp dst_ip 10.8.0.20 dst_port 7000 action gact pass
func addFilters(h *netlink.Handle, link netlink.Link) error {
	if err := h.QdiscAdd(ingressQdisc(link)); err != nil {
		return err
	}
	filter := func(pref uint16, to net.IP, action netlink.TcAct) error {
		f := &netlink.Flower{
			FilterAttrs: netlink.FilterAttrs{
				LinkIndex: link.Attrs().Index, Parent: netlink.MakeHandle(0xffff, 0), Priority: pref, Protocol: unix.ETH_P_IP,
			},
			EthType: unix.ETH_P_IP,
			Actions: []netlink.Action{&netlink.GenericAction{ActionAttrs: netlink.ActionAttrs{Action: action}}},
		}
		if to != nil {
			f.DestIP, f.DestIPMask = to, net.CIDRMask(32, 32)
		}
		return h.FilterAdd(f)
	}
	return errors.Join(filter(300, nil, netlink.TC_ACT_SHOT), filter(200, net.IPv4(10, 9, 0, 2).To4(), netlink.TC_ACT_OK))
}

// TestFromTrafficControl: the filters of multi-networkpolicy-tc are in force until somebody removes them, beside the agent's rules. Then
// the agent's rules alone deny. The limit of docs/migration.md: the agent takes a connected UDP socket of the pod for an allowed
// connection, unless policies judge every packet.
func TestFromTrafficControl(t *testing.T) {
	for _, revoke := range []bool{false, true} {
		t.Run(fmt.Sprintf("revoke %t", revoke), func(t *testing.T) {
			r := newRig(t)
			r.config.Cache.RevokeEstablished = revoke
			server := r.Hosts["server"]
			err := server.AtOtherEnd("net1", addFilters)
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
				t.Skip("SKIPPED: this kernel has no filters of kind flower")
			} else if err != nil {
				t.Fatal(err)
			}
			friend, stranger := lab.NewSink(t, r.Hosts["friend"]), lab.NewSink(t, r.Hosts["stranger"])
			toFriend, toStranger := netip.MustParseAddrPort("10.9.0.2:5000"), netip.MustParseAddrPort("10.9.0.3:5000")
			good := lab.StartFlood(t, server, toFriend, lab.AllowedPatience)
			bad := lab.StartFlood(t, server, toStranger, lab.ForbiddenPatience)
			time.Sleep(300 * time.Millisecond)

			r.StartRuntime("server")
			r.Load(node.Cluster + sendOnlyToFriend)
			r.start()
			r.IsEnforced(true)
			time.Sleep(300 * time.Millisecond)
			from := netip.MustParseAddr("10.9.0.1")
			if datagrams, connections := stranger.Received(from); datagrams+connections > 0 {
				t.Errorf("%d datagrams and %d connections reached the stranger through the filters", datagrams, connections)
			}
			if err := server.AtOtherEnd("net1", func(h *netlink.Handle, link netlink.Link) error { return h.QdiscDel(ingressQdisc(link)) }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(300 * time.Millisecond)
			good.End()
			bad.End()
			time.Sleep(100 * time.Millisecond)
			friend.HasAllFrom(t, from, good)
			datagrams, connections := stranger.Received(from)
			t.Logf("the stranger got %d datagrams, %d connections", datagrams, connections)
			if connections > 0 || (datagrams > 0) == revoke {
				t.Errorf("%d datagrams and %d connections reached the stranger", datagrams, connections)
			}
		})
	}
}
