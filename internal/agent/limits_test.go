package agent

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// The tests here hold docs/security.md to what it says of limits: what a pod can do to its own isolation, and cannot do
// to that of others.

// TestPacketSocket: a packet socket (CAP_NET_RAW) sends past the sender's own egress rules, as it is below netfilter's
// output hook. The receiver's ingress rules judge such a packet like any other.
func TestPacketSocket(t *testing.T) {
	w := newSettledWorld(t, false)
	// The allowed pod may send to the server alone, and the forbidden pod lets everybody in.
	past, kept := lab.NewSink(t, w.hosts["forbidden"]), lab.NewSink(t, w.hosts["server"])
	for range 20 {
		w.sendFrame("allowed", "forbidden")
		w.sendFrame("forbidden", "server")
		w.sendFrame("allowed", "server")
	}
	await.That(t, "past the sender's rules", func() bool {
		datagrams, _ := past.Received(w.addrs["allowed"])
		return datagrams > 0
	})
	await.That(t, "datagrams of the allowed sender", func() bool {
		datagrams, _ := kept.Received(w.addrs["allowed"])
		return datagrams > 0
	})
	time.Sleep(100 * time.Millisecond)
	if datagrams, _ := kept.Received(w.addrs["forbidden"]); datagrams > 0 {
		t.Errorf("%d datagrams of a packet socket passed the receiver's rules", datagrams)
	}
}

// sendFrame sends a datagram through a packet socket, to all on the link, as the sender need not ask for an address.
func (w *leakWorld) sendFrame(from, to string) {
	w.t.Helper()
	source, destination := w.addrs[from].As4(), w.addrs[to].As4()
	packet := []byte{0x45, 0, 0, 36, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	packet = append(append(packet, source[:]...), destination[:]...)
	sum := uint32(0)
	for i := 0; i < len(packet); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(packet[i:]))
	}
	binary.BigEndian.PutUint16(packet[10:], ^uint16(sum>>16+sum&0xffff))
	packet = binary.BigEndian.AppendUint16(packet, 4999)
	packet = binary.BigEndian.AppendUint16(packet, lab.FloodPort)
	packet = append(packet, 0, 16, 0, 0) // length; no checksum
	packet = append(packet, "datagram"...)
	err := w.hosts[from].Do(func() error {
		link, err := net.InterfaceByName("net1")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = unix.Sendto(fd, packet, 0, &unix.SockaddrLinklayer{
			Protocol: htons(unix.ETH_P_IP), Ifindex: link.Index, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		})
		return errors.Join(err, unix.Close(fd))
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func htons(n uint16) uint16 { return n<<8 | n>>8 }

// TestRenamedInterface: a pod with CAP_NET_ADMIN takes its interface out of its own isolation by giving it another name.
func TestRenamedInterface(t *testing.T) {
	w := newSettledWorld(t, false)
	to := netip.AddrPortFrom(w.addrs["server"], lab.FloodPort)
	lab.NewSink(t, w.hosts["server"])
	reaches := func() lab.Verdict {
		return lab.Probe(t.Context(), w.hosts["forbidden"], to, lab.TCP, 300*time.Millisecond).Verdict
	}
	if got := reaches(); got != lab.Dropped {
		t.Fatalf("before: %s", got)
	}
	err := w.hosts["server"].Do(func() error {
		link, err := netlink.LinkByName("net1")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetDown(link), netlink.LinkSetName(link, "other"), netlink.LinkSetUp(link))
	})
	if err != nil {
		t.Fatal(err)
	}
	await.That(t, "open under another name", func() bool { return reaches() == lab.Allowed })
}
