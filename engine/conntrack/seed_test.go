package conntrack

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// connected makes two hosts with TCP connections from the second to the first.
func connected(t testing.TB, connections int) (server, client *lab.Host) {
	t.Helper()
	l := lab.ForTest(t)
	var hosts []*lab.Host
	for i, name := range []string{"server", "client"} {
		h, err := l.Host(name, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}), 24))
		if err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, h)
	}
	server, client = hosts[0], hosts[1]
	var listener net.Listener
	err := server.Do(func() (err error) {
		listener, err = net.Listen("tcp4", ":80")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	err = client.Do(func() error {
		for range connections {
			c, err := net.Dial("tcp4", "10.9.0.1:80")
			if err != nil {
				return err
			}
			t.Cleanup(func() { c.Close() })
			a, err := listener.Accept()
			if err != nil {
				return err
			}
			t.Cleanup(func() { a.Close() })
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return server, client
}

// namespace opens the network namespace of a host.
func namespace(t testing.TB, h *lab.Host) *os.File {
	t.Helper()
	f, err := os.Open(h.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func BenchmarkSeed(b *testing.B) {
	for _, n := range []int{0, 100, 1000, 10000} {
		b.Run(fmt.Sprintf("%d connections", n), func(b *testing.B) {
			server, _ := connected(b, n)
			f := namespace(b, server)
			for b.Loop() {
				if made, err := Seed(f); err != nil || made != n {
					b.Fatal(made, err)
				}
				b.StopTimer()
				if err := server.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
