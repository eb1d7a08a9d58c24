package conntrack

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
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

// open opens an nfnetlink socket in the namespace of a host.
func open(t testing.TB, h *lab.Host) *nfnl.Conn {
	t.Helper()
	c, err := nfnl.Open(h.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// flush deletes all entries of a host.
func flush(t testing.TB, h *lab.Host) {
	t.Helper()
	if err := h.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
		t.Fatal(err)
	}
}

func TestMark(t *testing.T) {
	server, _ := connected(t, 1)
	c := open(t, server)
	is := func(want bool) {
		t.Helper()
		if is, err := IsSeeded(c); err != nil || is != want {
			t.Fatal(is, err)
		}
	}
	is(false)
	for _, made := range []int{1, 0} { // the second time, everything is there
		r, err := Seed(c)
		if err != nil || r.Made != made || r.Turned != 0 {
			t.Fatal(r, err)
		}
		is(true)
	}
	flush(t, server)
	is(false)
}

func BenchmarkSeed(b *testing.B) {
	for _, n := range []int{0, 100, 1000, 10000} {
		b.Run(fmt.Sprintf("connections=%d", n), func(b *testing.B) {
			server, _ := connected(b, n)
			c := open(b, server)
			for b.Loop() {
				if r, err := Seed(c); err != nil || r.Made != n {
					b.Fatal(r, err)
				}
				b.StopTimer()
				flush(b, server)
				b.StartTimer()
			}
		})
	}
}
