package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/nft"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// isolated returns the cluster with a policy for the server: its ingress and egress rules as JSON.
func isolated(ingress, egress string) string {
	return node.Cluster + fmt.Sprintf(`
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: p, uid: p,
  annotations: {k8s.v1.cni.cncf.io/policy-for: net}},
  spec: {podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress, Egress], ingress: %s, egress: %s}}
`, ingress, egress)
}

// serve starts echo servers in the server's namespace.
func (r *rig) serve(port uint16, protocols ...lab.Protocol) {
	r.t.Helper()
	for _, p := range protocols {
		if err := r.Hosts["server"].Serve(r.t.Context(), p, port); err != nil {
			r.t.Fatal(err)
		}
	}
}

// verdict sends a probe from a host.
func (r *rig) verdict(from, to string, p lab.Protocol, patience time.Duration) lab.Verdict {
	r.t.Helper()
	result := lab.Probe(r.t.Context(), r.Hosts[from], netip.MustParseAddrPort(to), p, patience)
	if result.Verdict == lab.Failed {
		r.t.Fatalf("probe from %s to %s: %v", from, to, result.Err)
	}
	return result.Verdict
}

func (r *rig) wantVerdict(from, to string, p lab.Protocol, want lab.Verdict) {
	r.t.Helper()
	patience := never
	if want == lab.Allowed {
		patience = soon
	}
	if got := r.verdict(from, to, p, patience); got != want {
		r.t.Errorf("from %s to %s, %v: %v, want %v", from, to, p, got, want)
	}
}

// The port that the peer dialed decides, and a pod may redirect what arrives there, as a service mesh does. The redirected
// port is not open to those who dial it.
func TestRedirectInsidePod(t *testing.T) {
	const allowed, forbidden, target = ":80", ":81", ":15006"
	for _, revoke := range []bool{false, true} {
		t.Run(fmt.Sprintf("revoke %t", revoke), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.config.Cache.RevokeEstablished = revoke
			r.serve(15006, lab.TCP, lab.UDP)
			nft.MustRun(r.t, r.Hosts["server"], `table ip mesh {
				chain in { type nat hook prerouting priority dstnat; iifname "net1" meta l4proto { tcp, udp } th dport 80-81 redirect to :15006; }
				chain out { type nat hook output priority -100; ip daddr 10.9.0.3 tcp dport 90 redirect to :15006; }
			}`, "--file", "-")
			r.StartRuntime("server")
			r.Load(isolated(`[{from: [{podSelector: {matchLabels: {app: friend}}}], ports: [{port: 80}, {port: 80, protocol: UDP}]}]`, `[]`))
			r.start()
			r.Becomes("enforced", true, false)
			for _, p := range []lab.Protocol{lab.TCP, lab.UDP} {
				r.wantVerdict("friend", "10.9.0.1"+allowed, p, lab.Allowed)
				r.wantVerdict("friend", "10.9.0.1"+forbidden, p, lab.Dropped)
				r.wantVerdict("friend", "10.9.0.1"+target, p, lab.Dropped)
				r.wantVerdict("stranger", "10.9.0.1"+allowed, p, lab.Dropped)
			}
			// What the pod sends to a forbidden address is forbidden, unless it redirects that to itself.
			r.wantVerdict("server", "10.9.0.3:90", lab.TCP, lab.Allowed)
			r.wantVerdict("server", "10.9.0.3:91", lab.TCP, lab.Dropped)
		})
	}
}

// A pod that forwards for others is isolated as well, also behind address translation: what enters it, and what leaves it.
func TestForwardingPod(t *testing.T) {
	r := newRig(t)
	inner, err := r.Network.Bare("inner")
	if err != nil {
		t.Fatal(err)
	}
	r.Hosts["inner"] = inner
	for host, addr := range map[string]string{"inner": "10.8.0.2/24", "server": "10.8.0.1/24"} {
		if err := r.Hosts[host].Attach("back", "back", netip.MustParsePrefix(addr)); err != nil {
			t.Fatal(err)
		}
	}
	run := func(host string, command ...string) {
		t.Helper()
		err := r.Hosts[host].Do(func() error {
			if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	run("inner", "ip", "route", "add", "default", "via", "10.8.0.1")
	run("server", "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
	nft.MustRun(r.t, r.Hosts["server"], `table ip machine {
		chain in { type nat hook prerouting priority dstnat; iifname "net1" udp dport 70 dnat to 10.8.0.2; }
		chain out { type nat hook postrouting priority srcnat; oifname "net1" masquerade; }
	}`, "--file", "-")
	for host, port := range map[string]uint16{"friend": 60, "stranger": 60, "inner": 70} {
		if err := r.Hosts[host].Serve(t.Context(), lab.UDP, port); err != nil {
			t.Fatal(err)
		}
	}
	r.StartRuntime("server")
	r.Load(node.Cluster)
	r.start()
	r.Becomes("open", true, true)
	both := func(friend, stranger lab.Verdict) {
		t.Helper()
		r.wantVerdict("inner", "10.9.0.2:60", lab.UDP, friend)
		r.wantVerdict("inner", "10.9.0.3:60", lab.UDP, stranger)
		r.wantVerdict("friend", "10.9.0.1:70", lab.UDP, friend)
		r.wantVerdict("stranger", "10.9.0.1:70", lab.UDP, stranger)
	}
	both(lab.Allowed, lab.Allowed)
	r.Load(isolated(`[{from: [{podSelector: {matchLabels: {app: friend}}}]}]`, `[{to: [{podSelector: {matchLabels: {app: friend}}}]}]`))
	r.Becomes("enforced", true, false)
	both(lab.Allowed, lab.Dropped)
}

// The kernel gives a pod a copy of its own multicast and broadcast messages. A policy does not keep them from it. The same
// messages from others are forbidden, also with the pod's address as their source.
func TestOwnMulticast(t *testing.T) {
	const port = 7000
	r := newRig(t)
	r.StartRuntime("server")
	r.Load(isolated(`[]`, `[{to: [{ipBlock: {cidr: 224.0.0.0/4}}, {ipBlock: {cidr: 10.9.255.255/32}}]}]`))
	r.start()
	r.Becomes("enforced", false, false)

	group := net.IPv4(239, 1, 1, 1)
	var received *net.UDPConn
	err := r.Hosts["server"].Do(func() error {
		link, err := net.InterfaceByName("net1")
		if err != nil {
			return err
		}
		received, err = net.ListenMulticastUDP("udp4", link, &net.UDPAddr{IP: group, Port: port})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer received.Close()
	for _, to := range []net.IP{group, net.IPv4(10, 9, 255, 255)} {
		arrives := func(from string, patience time.Duration) bool {
			t.Helper()
			if err := drain(received); err != nil {
				t.Fatal(err)
			}
			r.send(from, &net.UDPAddr{IP: to, Port: port})
			if err := received.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			_, _, err := received.ReadFrom(make([]byte, 64))
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			return err == nil
		}
		if !arrives("server", soon) {
			t.Errorf("what the pod sends to %s does not come back to it", to)
		}
		if arrives("stranger", never) {
			t.Errorf("what a stranger sends to %s arrives", to)
		}
	}
}

// send sends a datagram from the host's own address to a group or a broadcast address.
func (r *rig) send(from string, to *net.UDPAddr) {
	r.t.Helper()
	own := map[string]net.IP{"server": net.IPv4(10, 9, 0, 1), "stranger": net.IPv4(10, 9, 0, 3)}[from]
	err := r.Hosts[from].Do(func() error {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: own})
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.WriteTo([]byte("x"), to)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// Multicast needs IGMP in both directions: queries of a router, and reports of a pod.
func TestIGMP(t *testing.T) {
	r := newRig(t)
	r.StartRuntime("server")
	r.Load(isolated(`[]`, `[]`))
	r.start()
	r.Becomes("enforced", false, false)
	routers, reports := r.listenIGMP("stranger", [4]byte{224, 0, 0, 22}), r.listenIGMP("server", [4]byte{224, 0, 0, 1})

	err := r.Hosts["server"].Do(func() error { // to join a group is to report it
		link, err := net.InterfaceByName("net1")
		if err != nil {
			return err
		}
		c, err := net.ListenMulticastUDP("udp4", link, &net.UDPAddr{IP: net.IPv4(239, 1, 1, 2), Port: 7000})
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !receives(t, routers, "\x22") {
		t.Error("the pod's report does not leave it")
	}
	query := []byte{0x11, 0, 0xee, 0xff, 0, 0, 0, 0} // RFC 2236: a general query
	if err := unix.Sendto(routers, query, 0, &unix.SockaddrInet4{Addr: [4]byte{224, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if !receives(t, reports, "\x11") {
		t.Error("a router's query does not reach the pod")
	}
	// IGMP to the pod's own address is not what a link needs.
	if err := unix.Sendto(routers, query, 0, &unix.SockaddrInet4{Addr: [4]byte{10, 9, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if receives(t, reports, "\x11") {
		t.Error("IGMP to the pod's address passes")
	}
}

// listenIGMP opens a raw socket for IGMP that is in a group on net1.
func (r *rig) listenIGMP(host string, group [4]byte) (socket int) {
	r.t.Helper()
	err := r.Hosts[host].Do(func() (err error) {
		link, err := net.InterfaceByName("net1")
		if err != nil {
			return err
		}
		if socket, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_IGMP); err != nil {
			return err
		}
		member := &unix.IPMreqn{Multiaddr: group, Ifindex: int32(link.Index)}
		return errors.Join(
			unix.SetsockoptIPMreqn(socket, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, member),
			unix.SetsockoptIPMreqn(socket, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, member))
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { unix.Close(socket) })
	return socket
}

// receives reports whether an IGMP message of the type arrives from another host.
func receives(t *testing.T, socket int, message string) bool {
	t.Helper()
	packet := make([]byte, 1500)
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
		wait := unix.NsecToTimeval(int64(100 * time.Millisecond))
		if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
			t.Fatal(err)
		}
		n, err := unix.Read(socket, packet)
		if err != nil {
			continue
		}
		header := int(packet[0]&0x0f) * 4
		if n > header && strings.HasPrefix(string(packet[header:n]), message) {
			return true
		}
	}
	return false
}
