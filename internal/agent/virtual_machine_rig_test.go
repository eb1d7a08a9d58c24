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
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
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

// callIP makes the frames in the bridge of the pod pass the hooks of IP as well, or not.
func (w vmWorld) callIP(does bool) {
	w.t.Helper()
	value := map[bool]string{true: "1", false: "0"}[does]
	err := w.hosts["server"].Do(func() error {
		return errors.Join(os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte(value), 0),
			os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-ip6tables", []byte(value), 0))
	})
	if err != nil {
		w.t.Fatal(err)
	}
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

// listenSCTP makes a socket of SCTP that package net takes for a socket of TCP.
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
