package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/nft"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// device is a kind of network interface that a CNI plugin gives to a pod.
type device struct {
	name   string
	iface  string // the interface that the network status reports
	attach func(*deviceRig) error
}

var devices = []device{
	{"veth", "net1", func(r *deviceRig) error { return r.address("server", "net1", 1) }},
	{"vrf", "net1", (*deviceRig).enslaveToVRF},
	{"vlan", "net1", (*deviceRig).addVLANs},
	{"bond", "bond0", (*deviceRig).bond},
	{"ipvlan l2", "net1", func(r *deviceRig) error { return r.addIPVLAN(netlink.IPVLAN_MODE_L2) }},
	{"ipvlan l3", "net1", func(r *deviceRig) error { return r.addIPVLAN(netlink.IPVLAN_MODE_L3) }},
	{"macvlan bridge", "net1", func(r *deviceRig) error { return r.addMACVLAN(netlink.MACVLAN_MODE_BRIDGE) }},
	{"macvlan vepa", "net1", func(r *deviceRig) error { return r.addMACVLAN(netlink.MACVLAN_MODE_VEPA) }},
	{"macvlan private", "net1", func(r *deviceRig) error { return r.addMACVLAN(netlink.MACVLAN_MODE_PRIVATE) }},
	{"macvlan passthru", "net1", func(r *deviceRig) error { return r.addMACVLAN(netlink.MACVLAN_MODE_PASSTHRU) }},
}

// TestDevices: policies hold on each kind of interface, for both settings of --established.
func TestDevices(t *testing.T) {
	for _, d := range devices {
		for _, revoke := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, revoke %t", d.name, revoke), func(t *testing.T) {
				t.Parallel()
				r := newDeviceRig(t, d)
				r.config.Cache.RevokeEstablished = revoke
				r.StartRuntime("server")
				r.Load(r.withoutPolicy())
				r.start()
				r.wantBoth("without a policy", lab.Allowed)
				r.Load(r.withPolicy("net", "Ingress, Egress"))
				r.IsEnforced(true)
				r.wantBoth("with a policy", lab.Dropped)
				r.Load(r.withoutPolicy())
				r.IsEnforced(false)
				r.wantBoth("without a policy again", lab.Allowed)
			})
		}
	}
}

// TestBondPorts: a policy for the network of a port of a bond does nothing, as the kernel sees all packets on the bond.
func TestBondPorts(t *testing.T) {
	t.Parallel()
	r := newDeviceRig(t, device{"bond", "bond0", (*deviceRig).bond})
	r.StartRuntime("server")
	r.Load(r.withPolicy("port", "Ingress, Egress"))
	r.start()
	r.IsEnforced(true)
	r.wantBoth("with a policy for the ports", lab.Allowed)
}

// TestIPVLANL3S: the kernel delivers packets from outside to ipvlan in mode l3s without the hooks of the pod. The rules for egress
// hold, and drop the replies to clients.
func TestIPVLANL3S(t *testing.T) {
	t.Parallel()
	r := newDeviceRig(t, device{"ipvlan l3s", "net1", func(r *deviceRig) error { return r.addIPVLAN(netlink.IPVLAN_MODE_L3S) }})
	r.StartRuntime("server")
	r.Load(r.withPolicy("net", "Egress"))
	r.start()
	await.That(t, "egress is enforced", func() bool {
		return r.verdict("server", "10.9.0.3:80", lab.TCP, never) == lab.Dropped
	})
	for _, p := range []lab.Protocol{lab.TCP, lab.UDP} {
		r.wantVerdict("server", "10.9.0.2:80", p, lab.Allowed)
		r.wantVerdict("server", "10.9.0.3:80", p, lab.Dropped)
		r.wantVerdict("friend", "10.9.0.1:80", p, lab.Allowed)
		r.wantVerdict("stranger", "10.9.0.1:80", p, lab.Dropped) // the reply
	}
	r.Load(r.withPolicy("net", "Ingress"))
	await.That(t, "egress is open", func() bool { return r.verdict("server", "10.9.0.3:80", lab.TCP, soon) == lab.Allowed })
	for _, p := range []lab.Protocol{lab.TCP, lab.UDP} {
		r.wantVerdict("stranger", "10.9.0.1:80", p, lab.Allowed)
	}
}

// TestReportedName: if a plugin gives the interface another name, the name in the network status counts, as Multus takes it
// from the plugin's result.
func TestReportedName(t *testing.T) {
	t.Parallel()
	const name = "data0"
	r := newDeviceRig(t, device{"veth", "net1", func(r *deviceRig) error { return r.address("server", "net1", 1) }})
	r.StartRuntime("server")
	r.Load(r.withPolicy("net", "Ingress, Egress"))
	r.start()
	r.IsEnforced(true)
	r.wantBoth("under the requested name", lab.Dropped)
	r.in("server", func() error {
		return onLink("net1", func(l netlink.Link) error {
			return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetName(l, name), netlink.LinkSetUp(l))
		})
	})
	if err := r.address("server", name, 1); err != nil { // an interface that goes down loses its IPv6 addresses
		t.Fatal(err)
	}
	r.wantBoth("under a name that is not reported", lab.Allowed)
	r.device.iface = name
	r.Load(r.withPolicy("net", "Ingress, Egress"))
	await.That(t, "rules for the reported name", func() bool {
		table, _ := nft.Run(r.Hosts["server"], "", "list", "table", "inet", "multi_networkpolicy")
		return strings.Contains(table, name)
	})
	r.wantBoth("under the reported name", lab.Dropped)
}

// deviceRig is a node whose pod server has a network interface of a kind.
type deviceRig struct {
	*rig
	device device
}

// newDeviceRig skips the test if the kernel has no such devices.
func newDeviceRig(t *testing.T, d device) *deviceRig {
	t.Helper()
	r := &deviceRig{rig: newRig(t), device: d}
	if err := errors.Join(r.address("friend", "net1", 2), r.address("stranger", "net1", 3)); err != nil {
		t.Fatal(err)
	}
	switch err := d.attach(r); {
	case errors.Is(err, unix.EOPNOTSUPP):
		t.Skipf("SKIPPED: this kernel has no device %s: run it with hack/kernels", d.name)
	case err != nil:
		t.Fatal(err)
	}
	for name, protocols := range map[string][]lab.Protocol{
		"server": {lab.UDP}, "friend": {lab.TCP, lab.UDP}, "stranger": {lab.TCP, lab.UDP},
	} {
		for _, p := range protocols {
			if err := r.Hosts[name].Serve(t.Context(), p, 80); err != nil {
				t.Fatal(err)
			}
		}
	}
	return r
}

// withoutPolicy returns the cluster: the addresses of both families, and the name of the server's interface.
func (r *deviceRig) withoutPolicy() string {
	status := fmt.Sprintf(`"interface": %q, "ips": ["10.9.0.1", "fd00:9::1"]`, r.device.iface)
	if r.device.iface == "bond0" {
		status += `}, {"name": "ns/port", "interface": "net1"}, {"name": "ns/port", "interface": "net2"`
	}
	return strings.NewReplacer(
		`"interface": "net1", "ips": ["10.9.0.1"]`, status,
		`"ips": ["10.9.0.2"]`, `"ips": ["10.9.0.2", "fd00:9::2"]`,
	).Replace(node.Cluster)
}

// withPolicy returns the cluster with a policy that isolates the server and allows the friend.
func (r *deviceRig) withPolicy(network, directions string) string {
	return r.withoutPolicy() + fmt.Sprintf(`
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: p, uid: p,
  annotations: {k8s.v1.cni.cncf.io/policy-for: %s}},
  spec: {podSelector: {matchLabels: {app: server}}, policyTypes: [%s],
    ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}], egress: [{to: [{podSelector: {matchLabels: {app: friend}}}]}]}}
`, network, directions)
}

// wantBoth sends packets both ways between the server and each peer. Those of the friend pass.
func (r *deviceRig) wantBoth(when string, stranger lab.Verdict) {
	r.t.Helper()
	r.t.Log(when)
	for _, p := range []lab.Protocol{lab.TCP, lab.UDP} {
		for _, prefix := range []string{"10.9.0.%d", "[fd00:9::%d]"} {
			at := func(host int) string { return fmt.Sprintf(prefix, host) + ":80" }
			r.wantVerdict("friend", at(1), p, lab.Allowed)
			r.wantVerdict("server", at(2), p, lab.Allowed)
			r.wantVerdict("stranger", at(1), p, stranger)
			r.wantVerdict("server", at(3), p, stranger)
		}
	}
}

// moveTo moves an interface into the namespace of a host.
func moveTo(host *lab.Host, l netlink.Link) error {
	ns, err := os.Open(host.NetNS())
	if err != nil {
		return err
	}
	return errors.Join(netlink.LinkSetNsFd(l, int(ns.Fd())), ns.Close())
}

// inHost runs a function in the namespace of a host.
func (r *deviceRig) inHost(host string, do func() error) error { return r.Hosts[host].Do(do) }

func onLink(name string, do func(netlink.Link) error) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return do(link)
}

// prefixes returns the addresses of a host.
func prefixes(host byte) []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 0, host}), 16),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 3: 9, 15: host}), 64),
	}
}

// address sets an interface up, and gives it the addresses of the host that it lacks.
func (r *deviceRig) address(host, iface string, number byte) error {
	return r.inHost(host, func() error {
		return onLink(iface, func(link netlink.Link) error {
			errs := []error{netlink.LinkSetUp(link)}
			for _, p := range prefixes(number) {
				errs = append(errs, netlink.AddrReplace(link, &netlink.Addr{Flags: unix.IFA_F_NODAD, IPNet: ipNet(p)}))
			}
			return errors.Join(errs...)
		})
	})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// enslaveToVRF makes the server's interface a port of a VRF. The server of the node takes connections from all VRFs, and the
// sockets that come later are in this VRF.
func (r *deviceRig) enslaveToVRF() error {
	const vrf = "vrf0"
	err := r.inHost("server", func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = vrf
		if err := netlink.LinkAdd(&netlink.Vrf{LinkAttrs: attrs, Table: 100}); err != nil {
			return err
		}
		return errors.Join(
			onLink(vrf, func(master netlink.Link) error {
				return errors.Join(netlink.LinkSetUp(master), onLink("net1", func(l netlink.Link) error {
					return netlink.LinkSetMaster(l, master)
				}))
			}),
			os.WriteFile("/proc/sys/net/ipv4/tcp_l3mdev_accept", []byte("1"), 0),
		)
	})
	if err != nil {
		return err
	}
	r.Hosts["server"].BindTo(vrf)
	return r.address("server", "net1", 1)
}

// addVLANs moves all hosts to a VLAN on their interfaces. The name of the device is that of net1 with a suffix.
func (r *deviceRig) addVLANs() error {
	const vlan = "net1.100"
	for i, host := range []string{"server", "friend", "stranger"} {
		err := r.inHost(host, func() error {
			return onLink("net1", func(parent netlink.Link) error {
				attrs := netlink.NewLinkAttrs()
				attrs.Name, attrs.ParentIndex = vlan, parent.Attrs().Index
				if err := netlink.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: 100, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}); err != nil {
					return err
				}
				addrs, err := netlink.AddrList(parent, netlink.FAMILY_ALL)
				for _, a := range addrs {
					err = errors.Join(err, netlink.AddrDel(parent, &a))
				}
				return err
			})
		})
		if err := errors.Join(err, r.address(host, vlan, byte(i+1))); err != nil {
			return err
		}
	}
	return nil
}

// bond gives the server a bond with two ports.
func (r *deviceRig) bond() error {
	const bond = "bond0"
	server := r.Hosts["server"]
	if err := server.Attach(lab.DefaultBridge, "net2"); err != nil {
		return err
	}
	err := r.inHost("server", func() error {
		bonding := netlink.NewLinkBond(netlink.NewLinkAttrs())
		bonding.Name, bonding.Mode, bonding.Miimon = bond, netlink.BOND_MODE_ACTIVE_BACKUP, 100
		if err := netlink.LinkAdd(bonding); err != nil {
			return err
		}
		return onLink(bond, func(master netlink.Link) error {
			var errs []error
			for _, port := range []string{"net1", "net2"} {
				errs = append(errs, onLink(port, func(l netlink.Link) error {
					addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
					for _, a := range addrs {
						err = errors.Join(err, netlink.AddrDel(l, &a))
					}
					return errors.Join(err, netlink.LinkSetDown(l), netlink.LinkSetMaster(l, master), netlink.LinkSetUp(l))
				}))
			}
			return errors.Join(errs...)
		})
	})
	if err != nil {
		return err
	}
	return r.address("server", bond, 1)
}

func (r *deviceRig) addMACVLAN(mode netlink.MacvlanMode) error {
	_, err := r.addOnMaster(func(a netlink.LinkAttrs) netlink.Link { return &netlink.Macvlan{LinkAttrs: a, Mode: mode} })
	return err
}

// addIPVLAN replaces the server's interface by an ipvlan device. In the modes l3 and l3s it does not answer ARP and neighbor
// discovery, so the peers learn its MAC address here.
func (r *deviceRig) addIPVLAN(mode netlink.IPVlanMode) error {
	master, err := r.addOnMaster(func(a netlink.LinkAttrs) netlink.Link { return &netlink.IPVlan{LinkAttrs: a, Mode: mode} })
	if err != nil {
		return err
	}
	for _, host := range []string{"friend", "stranger"} {
		err = errors.Join(err, r.inHost(host, func() error {
			return onLink("net1", func(l netlink.Link) (err error) {
				for _, p := range prefixes(1) {
					err = errors.Join(err, netlink.NeighSet(&netlink.Neigh{
						LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: p.Addr().AsSlice(), HardwareAddr: master,
					}))
				}
				return err
			})
		}))
	}
	return err
}

// addOnMaster replaces the server's interface by a device on an interface of the node. It returns the MAC address of the
// node's interface.
func (r *deviceRig) addOnMaster(link func(netlink.LinkAttrs) netlink.Link) (mac net.HardwareAddr, err error) {
	const master, made = "m0", "made"
	host, err := r.Network.Bare("node")
	if err != nil {
		return nil, err
	}
	r.Hosts["node"] = host
	if err := errors.Join(host.Attach(lab.DefaultBridge, master), r.address("node", master, 100), r.Hosts["server"].Detach("net1")); err != nil {
		return nil, err
	}
	err = host.Do(func() error {
		return onLink(master, func(parent netlink.Link) error {
			mac = parent.Attrs().HardwareAddr
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.ParentIndex = made, parent.Attrs().Index
			if err := netlink.LinkAdd(link(attrs)); err != nil {
				return err
			}
			return onLink(made, func(l netlink.Link) error { return moveTo(r.Hosts["server"], l) })
		})
	})
	if err != nil {
		return nil, err
	}
	err = r.inHost("server", func() error {
		return onLink(made, func(l netlink.Link) error { return netlink.LinkSetName(l, "net1") })
	})
	return mac, errors.Join(err, r.address("server", "net1", 1))
}

// TestNotEnforceable: policies that the kernel cannot enforce completely have an Event, and the pod counts in the metrics. The
// definition of the network tells, or the container runtime. A policy for a network that does not exist has an Event, too.
func TestNotEnforceable(t *testing.T) {
	for _, tc := range []struct{ config, handler string }{
		{`{"type": "ipvlan", "mode": "l3s"}`, ""},
		{`{"type": "macvlan"}`, "kata-qemu"},
	} {
		t.Run(tc.config+tc.handler, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.config.MetricsAddress = cluster.LoopbackAddress()
			r.StartRuntime()
			r.Runtime.Set(cluster.Sandbox{
				ID: "s1", UID: "server", Namespace: "ns", Name: "server", Handler: tc.handler, Info: cluster.InfoOf(node.PathOf(r.Hosts["server"])),
			})
			lost := strings.NewReplacer("name: p, uid: p,", "name: lost, uid: lost,", "policy-for: net", "policy-for: nowhere").Replace(node.Policy)
			r.Load(strings.Replace(node.Cluster, `{"type": "macvlan"}`, tc.config, 1) + node.Policy + lost)
			r.start()
			await.That(t, "the metric", func() bool {
				_, text := node.Get(t, "http://"+r.config.MetricsAddress+"/metrics")
				return strings.Contains(text, `multi_networkpolicy_pods_not_enforced{reason="not_enforceable"} 1`)
			})
			await.That(t, "the Event", func() bool {
				return slices.ContainsFunc(r.API.Events(), func(e corev1.Event) bool {
					return e.Reason == string(policy.NotEnforceable) && e.InvolvedObject.Name == "p" && strings.Contains(e.Message, "interface net1 of network ns/net: ")
				})
			})
			await.That(t, "the Event of the network that does not exist", func() bool {
				return slices.ContainsFunc(r.API.Events(), func(e corev1.Event) bool {
					return e.Reason == string(policy.UndefinedNetwork) && e.InvolvedObject.Name == "lost" && strings.Contains(e.Message, "ns/nowhere")
				})
			})
		})
	}
}
