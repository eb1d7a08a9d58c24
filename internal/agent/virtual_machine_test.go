package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// policyProbes are the verdicts of the policy.
func policyProbes() []vmProbe {
	const port = lab.FloodPort
	return []vmProbe{
		{"allowed", "server", port, true}, {"allowed", "server", port + 1, false}, {"forbidden", "server", port, false},
		{"server", "allowed", port, true}, {"server", "allowed", port + 1, false}, {"server", "forbidden", port, false},
		{"allowed", "forbidden", port, true},
	}
}

// TestVirtualMachine: policies hold for a virtual machine as for a pod, in both directions, whatever the settings of established
// connections, over a restart of the agent and after the last policy, and with br_netfilter as without.
func TestVirtualMachine(t *testing.T) {
	needsBridgeTracking(t)
	hasNetfilter := lab.HasBridgeNetfilter(t)
	for i, revoke := range []bool{false, true, false, true} {
		callsIP := i < 2
		t.Run(fmt.Sprintf("revoke %t, br_netfilter %t", revoke, callsIP), func(t *testing.T) {
			w := newVMWorld(t, (*leakWorld).virtualize)
			if hasNetfilter {
				w.callIP(callsIP)
			} else if callsIP {
				t.Skip("SKIPPED: br_netfilter is not loaded")
			}
			w.options.RevokeEstablished = revoke
			protocols := vmProtocols(t)
			w.serve(protocols, "server", "allowed", "forbidden")
			w.run()
			w.expect("at the start", protocols, policyProbes()...)
			w.stop()
			w.run()
			w.expect("after a restart", protocols, policyProbes()...)
			if finding := w.tables.check(t, "default/server"); finding != engine.AsApplied {
				t.Errorf("a check finds %v", finding)
			}
			w.withdraw(protocols, revoke)
			w.state.DeletePolicy(cache.Key{Namespace: "default", Name: "server"})
			w.settle()
			if out, err := w.nft("server", "list", "tables"); err != nil || strings.Contains(out, "multi_networkpolicy") {
				t.Errorf("after the last policy: %s %v", out, err)
			}
			w.expect("after the last policy", protocols, vmProbe{"forbidden", "server", lab.FloodPort, true}, vmProbe{"server", "forbidden", lab.FloodPort, true})
		})
	}
}

// withdraw takes a permission away while connections are open that began under it, from either side.
func (w vmWorld) withdraw(protocols []string, revoke bool) {
	w.t.Helper()
	open := map[string]net.Conn{}
	for _, protocol := range protocols {
		network, _, isMore := strings.Cut(protocol, "/")
		for i, addr := range w.addrsOf("server") {
			for from, to := range map[string]netip.Addr{"allowed": addr, "server": w.addrsOf("allowed")[i]} {
				if isMore {
					continue
				}
				c, err := dial(w.host(from), network, netip.AddrPortFrom(to, lab.FloodPort), vmSoon)
				if err != nil || !answers(c, 8, vmSoon) {
					w.t.Fatalf("%s from %s does not open: %v", network, from, err)
				}
				defer c.Close()
				open[fmt.Sprintf("%s from %s to %s", network, from, to)] = c
			}
		}
	}
	w.pods["allowed"].Labels["app"] = "other"
	w.putPod(w.pods["allowed"])
	w.settle()
	for name, c := range open {
		patience := vmNever
		if !revoke {
			patience = vmSoon
		}
		if got := answers(c, 8, patience); got == revoke {
			w.t.Errorf("withdrawn: %s goes on: %t", name, got)
		}
	}
	w.expect("withdrawn", protocols, vmProbe{"allowed", "server", lab.FloodPort, false}, vmProbe{"server", "allowed", lab.FloodPort, false})
}

// TestVirtualMachineVLAN: frames with a VLAN tag are judged by the packet in them. Frames with two tags are dropped.
func TestVirtualMachineVLAN(t *testing.T) {
	needsBridgeTracking(t)
	w := newVMWorld(t, (*leakWorld).virtualize)
	for i, name := range []string{"server", "allowed", "forbidden"} {
		ifname := "net1"
		if name == "server" {
			ifname = "eth0"
		}
		single := netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)})
		if name == "forbidden" {
			single = netip.AddrFrom4([4]byte{10, 9, 1, 1})
		}
		ok, err := w.host(name).Tag(ifname, 5, netip.PrefixFrom(single, 16))
		if err == nil && ok {
			_, err = w.host(name).Tag(ifname+".5", 7, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 129)}), 25))
		}
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			t.Skip("SKIPPED: this kernel has no VLAN devices")
		}
	}
	protocols := vmProtocols(t)
	w.serve(protocols, "server", "allowed", "forbidden")
	ask := func(when, from, to string, want bool) {
		t.Helper()
		patience := vmNever
		if want {
			patience = vmSoon
		}
		for _, protocol := range []string{"tcp", "udp"} {
			if got := reaches(w.host(from), protocol, netip.MustParseAddrPort(to), 8, patience); got != want {
				t.Errorf("%s: %s from %s to %s: passes %t, want %t", when, protocol, from, to, got, want)
			}
		}
	}
	ask("without a policy", "allowed", "10.9.0.129:5000", true) // two tags
	w.run()
	ask("tagged", "allowed", "10.9.0.1:5000", true)
	ask("tagged", "allowed", "10.9.0.1:5001", false)
	ask("tagged", "server", "10.9.0.2:5000", true)
	ask("tagged", "forbidden", "10.9.0.1:5000", false)
	ask("tagged", "server", "10.9.1.1:5000", false)
	ask("two tags", "allowed", "10.9.0.129:5000", false)
	ask("two tags", "server", "10.9.0.130:5000", false)
	w.expect("untagged", []string{"tcp", "udp"}, policyProbes()...)
}

// TestVirtualMachineCutOff: where the kernel cannot enforce policies in bridges, no packet of IP passes the bridge, and ARP does.
// The agent says so.
func TestVirtualMachineCutOff(t *testing.T) {
	w := newVMWorld(t, (*leakWorld).virtualize)
	w.options.Bridge = cache.BridgeDrops
	protocols := vmProtocols(t)
	w.serve(protocols, "server", "allowed", "forbidden")
	w.expect("without a policy", protocols, vmProbe{"forbidden", "server", lab.FloodPort, true})
	w.run()
	var closed []vmProbe
	for _, p := range policyProbes()[:6] {
		closed = append(closed, vmProbe{p.from, p.to, p.port, false})
	}
	w.expect("cut off", protocols, closed...)
	found := w.state.Shortfalls()
	if len(found) != 1 || found[0].Reason != policy.BridgeNotEnforced || found[0].Policy.Name != "server" {
		t.Errorf("shortfalls: %+v", found)
	}
	if s := w.state.Stats(); s.BridgesDropped != 1 || s.BridgesEnforced != 0 {
		t.Errorf("%+v", s)
	}
}

// TestBridgeAppears: a bridge in a pod that is no virtual machine is closed at once. When the agent has found it, the policies
// hold in it; also after a restart.
func TestBridgeAppears(t *testing.T) {
	w := newVMWorld(t, func(*leakWorld) {})
	protocols := vmProtocols(t)
	w.run()
	w.virtualize()
	delete(w.pods["server"].Labels, "kubevirt.io")
	w.serve(protocols, "server", "allowed", "forbidden")
	if w.options.Bridge == cache.BridgeStateful { // else it stays so
		w.expect("before it is found", []string{"tcp"}, vmProbe{"forbidden", "server", lab.FloodPort, false})
	}
	isFound := func() bool { s := w.state.Stats(); return s.BridgesEnforced+s.BridgesDropped == 1 }
	await.That(t, "the bridge is found", func() bool { w.agent.Notify(); return isFound() })
	w.settle()
	want := policyProbes()
	if w.options.Bridge != cache.BridgeStateful {
		t.Log("this kernel has no connection tracking for bridges: the bridge stays closed")
		for i := range want[:6] {
			want[i].want = false
		}
	}
	w.expect("found", protocols, want...)
	w.stop()
	w.run()
	if !isFound() {
		t.Error("the first tables after a restart do not know of the bridge")
	}
	w.expect("after a restart", protocols, want...)
}

// TestVirtualMachineMigration: during a live migration two pods have one address. Nothing leaks to either of them, and of what
// is allowed nothing is lost, but for the moment in which the virtual machine stands still.
func TestVirtualMachineMigration(t *testing.T) {
	needsBridgeTracking(t)
	w := newVMWorld(t, (*leakWorld).virtualize)
	target, guest := w.migrationTarget()
	phase := func(when string, at *lab.Host, do func()) {
		t.Helper()
		sink := lab.NewSink(t, at)
		to := netip.AddrPortFrom(w.addrs["server"], lab.FloodPort)
		good := lab.StartFlood(t, w.hosts["allowed"], to, lab.AllowedPatience)
		bad := lab.StartFlood(t, w.hosts["forbidden"], to, lab.ForbiddenPatience)
		do()
		w.settle()
		time.Sleep(200 * time.Millisecond)
		good.End()
		bad.End()
		time.Sleep(100 * time.Millisecond) // what is in flight arrives
		t.Log(when)
		sink.HasAllFrom(t, w.addrs["allowed"], good)
		sink.HasNothingFrom(t, w.addrs["forbidden"], bad)
	}
	w.run()
	phase("the pod of the target comes", w.guest, func() {
		w.pods["target"] = leakPod("target", "node", w.addrs["server"], map[string]string{"app": "server", "kubevirt.io": "virt-launcher"})
		w.putPod(w.pods["target"])
		w.state.SetSandbox("uid-target", cache.Sandbox{ID: "target", NetNS: target.NetNS()})
	})
	w.move(guest)
	phase("the pod of the source goes", guest, func() {
		w.state.DeleteSandbox("uid-server")
		w.state.DeletePod(cache.Key{Namespace: "default", Name: "server"})
	})
}

// migrationTarget makes the pod that the virtual machine moves to, and the place of the virtual machine in it.
func (w vmWorld) migrationTarget() (pod, guest *lab.Host) {
	w.t.Helper()
	pod, err := w.network.Host("target")
	if err == nil {
		guest, err = pod.VirtualMachine("net1")
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return pod, guest
}

// move stops the virtual machine and goes on with it in another pod. The first packet there tells the network where it is.
func (w vmWorld) move(to *lab.Host) {
	w.t.Helper()
	var mac net.HardwareAddr
	err := w.guest.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		mac = link.Attrs().HardwareAddr
		return netlink.LinkSetDown(link)
	})
	if err == nil {
		err = to.Do(func() error {
			link, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return netlink.LinkSetHardwareAddr(link, mac)
		})
	}
	err = errors.Join(err, to.AddAddr("eth0", netip.PrefixFrom(w.addrs["server"], 16)))
	if err != nil {
		w.t.Fatal(err)
	}
	echo(w.t, w.hosts["allowed"], "udp", lab.FloodPort)
	if !reaches(to, "udp", netip.AddrPortFrom(w.addrs["allowed"], lab.FloodPort), 8, vmSoon) {
		w.t.Fatal("the virtual machine does not go on")
	}
}

// TestVirtualMachineNotEnforced: on a kernel that lacks connection tracking for bridges, an agent cuts the virtual machine off, also
// from the peers that the policy allows, and says so in an Event and in the metrics.
func TestVirtualMachineNotEnforced(t *testing.T) {
	t.Parallel()
	if support, _ := ProbeBridge(cache.Options{}); support != cache.BridgeDrops {
		t.Skip("SKIPPED: this kernel can enforce policies in bridges, or has no nf_tables for them")
	}
	r := newRig(t)
	guest, err := r.Hosts["server"].VirtualMachine("net1")
	if err != nil {
		t.Fatal(err)
	}
	echo(t, guest, "tcp", lab.FloodPort)
	reaches := func(patience time.Duration) bool {
		return reaches(r.Hosts["friend"], "tcp", netip.AddrPortFrom(netip.MustParseAddr("10.9.0.1"), lab.FloodPort), 8, patience)
	}
	if !reaches(vmSoon) {
		t.Fatal("the virtual machine cannot be reached without a policy")
	}
	r.config.MetricsAddress = cluster.LoopbackAddress()
	r.StartRuntime("server")
	r.Load(strings.Replace(node.Cluster, "labels: {app: server}", "labels: {app: server, kubevirt.io: virt-launcher}", 1) + node.Policy)
	stop := r.start()
	await.That(t, "the virtual machine is cut off", func() bool { return !reaches(vmNever) })
	await.That(t, "the Event", func() bool {
		return slices.ContainsFunc(r.API.Events(), func(e corev1.Event) bool {
			return e.Reason == string(policy.BridgeNotEnforced) && e.InvolvedObject.Name == "p" && strings.Contains(e.Message, "CONFIG_NF_CONNTRACK_BRIDGE")
		})
	})
	await.That(t, "the metric", func() bool {
		_, text := node.Get(t, "http://"+r.config.MetricsAddress+"/metrics")
		return strings.Contains(text, `multi_networkpolicy_pods_with_bridge{enforcement="drop"} 1`)
	})
	stop()
	if reaches(time.Second) {
		t.Error("the virtual machine is open without the agent")
	}
}

// TestVirtualMachineCounters: with the flag --policy-counters, the metrics count what the rules in the bridge allow and drop.
func TestVirtualMachineCounters(t *testing.T) {
	needsBridgeTracking(t)
	w := newVMWorld(t, (*leakWorld).virtualize)
	w.options.PolicyCounters, w.metrics.countPolicies = true, true
	w.metrics.policies.meet(cache.Key{Namespace: "default", Name: "server"})
	w.serve([]string{"tcp"}, "server", "allowed", "forbidden")
	w.run()
	const dialed = 5
	for range dialed {
		w.expect("counted", []string{"tcp"}, policyProbes()[:6]...)
	}
	count := func(direction, verdict string) float64 {
		return testutil.ToFloat64(w.metrics.policies.counters[0].WithLabelValues("default", "server", direction, verdict))
	}
	for _, direction := range []string{"ingress", "egress"} {
		// In each of two families a connection is allowed, and a port and a peer are not. Their SYNs may be sent again.
		await.That(t, direction+": allowed", func() bool { return count(direction, "allowed") >= 2*dialed })
		await.That(t, direction+": dropped", func() bool { return count(direction, "dropped") >= 4*dialed })
		if got := count(direction, "allowed"); got > 4*dialed {
			t.Errorf("%s: %v packets are counted as allowed, of %d connections", direction, got, 2*dialed)
		}
	}
}
