package agent

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// needsBridgeTracking skips a test on a kernel that cannot enforce policies in bridges. hack/kernels runs it on other kernels.
func needsBridgeTracking(t *testing.T) {
	t.Helper()
	if support, err := ProbeBridge(cache.Options{}); support != cache.BridgeStateful {
		t.Skipf("SKIPPED: this kernel has no connection tracking for bridges (%v); run `go run ./hack/kernels -run VirtualMachine ./internal/agent`", err)
	}
}

// vmWorld is a leakWorld whose server is a virtual machine. Its policy isolates it both ways: it takes only from app=allowed and
// from 10.9.0.0/24, and sends only there, in each case to FloodPort.
type vmWorld struct {
	*leakWorld
}

func newVMWorld(t *testing.T, prepare func(*leakWorld)) vmWorld {
	features, err := engine.Probe()
	if err != nil {
		t.Fatal(err)
	}
	w := vmWorld{newLeakWorld(t, rand.New(rand.NewPCG(1, 2)), features.Owner)}
	w.options.Bridge, _ = ProbeBridge(w.options)
	prepare(w.leakWorld)
	delete(w.policy, "allowed")
	peers := append(peersOf("allowed"), mnpv1.MultiNetworkPolicyPeer{IPBlock: &mnpv1.IPBlock{CIDR: "10.9.0.0/24"}})
	p := w.policy["server"]
	p.Spec.PolicyTypes = []mnpv1.MultiPolicyType{mnpv1.PolicyTypeIngress, mnpv1.PolicyTypeEgress}
	p.Spec.Ingress = []mnpv1.MultiNetworkPolicyIngressRule{{From: peers, Ports: vmPorts()}}
	p.Spec.Egress = []mnpv1.MultiNetworkPolicyEgressRule{{To: peers, Ports: vmPorts()}}
	return w
}

// vmPorts is FloodPort of all protocols.
func vmPorts() (ports []mnpv1.MultiNetworkPolicyPort) {
	for _, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP} {
		port := intstr.FromInt(lab.FloodPort)
		ports = append(ports, mnpv1.MultiNetworkPolicyPort{Protocol: &protocol, Port: &port})
	}
	return ports
}

func (w vmWorld) run() {
	w.t.Helper()
	w.start()
	w.t.Cleanup(func() { w.stop() })
	w.settle()
}

// echo answers in a host on a port, whatever the size of a message.
func echo(t *testing.T, h *lab.Host, protocol string, port int) {
	t.Helper()
	listen := func() error {
		if protocol == "udp" {
			c, err := net.ListenUDP("udp", &net.UDPAddr{Port: port})
			if err != nil {
				return err
			}
			t.Cleanup(func() { c.Close() })
			go func() {
				b := make([]byte, 1<<16)
				for {
					n, from, err := c.ReadFromUDPAddrPort(b)
					if errors.Is(err, net.ErrClosed) {
						return
					}
					c.WriteToUDPAddrPort(b[:n], from) //nolint:errcheck // a policy may refuse it
				}
			}()
			return nil
		}
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if protocol == "sctp" {
			l, err = listenSCTP(port)
		}
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) //nolint:errcheck // it ends with the connection
			}
		}()
		return nil
	}
	if err := h.Do(listen); err != nil {
		t.Fatal(err)
	}
}

// listenSCTP makes a socket of SCTP that package net takes for one of TCP.
func listenSCTP(port int) (net.Listener, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "sctp")
	defer f.Close()
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet6{Port: port}), unix.Listen(fd, 8)); err != nil {
		return nil, err
	}
	return net.FileListener(f)
}

// dial opens a connection from a host. It gives up after the patience.
func dial(from *lab.Host, protocol string, to netip.AddrPort, patience time.Duration) (c net.Conn, err error) {
	do := func() error {
		if protocol != "sctp" {
			c, err = net.DialTimeout(protocol, to.String(), patience)
			return err
		}
		family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(to.Port())})
		if to.Addr().Is4() {
			sa.(*unix.SockaddrInet4).Addr = to.Addr().As4()
		} else {
			family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
		}
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "sctp")
		defer f.Close()
		timeout := unix.NsecToTimeval(patience.Nanoseconds())
		if err := errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout), unix.Connect(fd, sa)); err != nil {
			return err
		}
		c, err = net.FileConn(f)
		return err
	}
	return c, from.Do(do)
}

// answers reports whether an echo comes back over the connection.
func answers(c net.Conn, size int, patience time.Duration) bool {
	b := make([]byte, size)
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return false
	}
	if _, err := c.Write(b); err != nil {
		return false
	}
	_, err := io.ReadFull(c, b)
	return err == nil
}

// reaches reports whether an echo of a size comes back. A packet of ARP may be lost, so datagrams have several tries.
func reaches(from *lab.Host, protocol string, to netip.AddrPort, size int, patience time.Duration) bool {
	c, err := dial(from, protocol, to, patience)
	if err != nil {
		return false
	}
	defer c.Close()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if answers(c, size, patience/4) {
			return true
		}
	}
	return false
}

// How long a test waits for what must pass, and for what must not.
const (
	vmSoon  = 15 * time.Second // SCTP waits three seconds before it sends a lost INIT again
	vmNever = 400 * time.Millisecond
)

// vmProbe is a question about one packet and its echo.
type vmProbe struct {
	from, to string
	port     int
	want     bool
}

// addrsOf returns both addresses of a pod.
func (w vmWorld) addrsOf(name string) []netip.Addr {
	return []netip.Addr{w.addrs[name], v6Of(w.addrs[name])}
}

func (w vmWorld) host(name string) *lab.Host {
	if name == "server" {
		return w.server()
	}
	return w.hosts[name]
}

// expect asks all questions, in both families, with the protocols.
func (w vmWorld) expect(when string, protocols []string, probes ...vmProbe) {
	w.t.Helper()
	var all sync.WaitGroup
	for _, p := range probes {
		for _, addr := range w.addrsOf(p.to) {
			for _, protocol := range protocols {
				name, size, _ := strings.Cut(protocol, "/")
				bytes := 8
				if size != "" {
					bytes = 4000
				}
				patience := vmNever
				if p.want {
					patience = vmSoon
				}
				all.Go(func() {
					if got := reaches(w.host(p.from), name, netip.AddrPortFrom(addr, uint16(p.port)), bytes, patience); got != p.want {
						w.t.Errorf("%s: %s from %s to %s at %s: passes %t, want %t", when, protocol, p.from, p.to, netip.AddrPortFrom(addr, uint16(p.port)), got, p.want)
					}
				})
			}
		}
	}
	all.Wait()
}

// vmProtocols are the protocols of the kernel; "udp/fragments" are datagrams that need several packets.
func vmProtocols(t *testing.T) []string {
	protocols := []string{"tcp", "udp", "udp/fragments"}
	if lab.HasSCTP(t) {
		protocols = append(protocols, "sctp")
	}
	return protocols
}

func (w vmWorld) serve(protocols []string, hosts ...string) {
	for _, name := range hosts {
		for _, protocol := range protocols {
			if network, _, isMore := strings.Cut(protocol, "/"); !isMore {
				echo(w.t, w.host(name), network, lab.FloodPort)
				echo(w.t, w.host(name), network, lab.FloodPort+1)
			}
		}
	}
}

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
// connections, over a restart of the agent and after the last policy.
func TestVirtualMachine(t *testing.T) {
	needsBridgeTracking(t)
	for _, revoke := range []bool{false, true} {
		t.Run(fmt.Sprintf("revoke %t", revoke), func(t *testing.T) {
			w := newVMWorld(t, (*leakWorld).virtualize)
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
	if len(found) != 1 || found[0].Reason != cache.BridgeNotEnforced || found[0].Policy.Name != "server" {
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
	node.Eventually(t, "the bridge is found", func() bool { w.agent.Notify(); return isFound() })
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
