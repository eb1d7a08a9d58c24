package conntrack

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

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
		h, err := l.Host(name, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}), 24),
			netip.MustParsePrefix(fmt.Sprintf("fd00::%d/64", i+1)))
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
		r, err := Seed(c, true)
		if err != nil || r.Made != made || r.Turned != 0 {
			t.Fatal(r, err)
		}
		is(true)
	}
	flush(t, server)
	is(false)
}

// An entry that the pod's own packet has made has the ends the wrong way round.
func TestSeedTurnsEntries(t *testing.T) {
	for _, addr := range []string{"10.9.0.1", "fd00::1"} {
		server, client := connected(t, 0)
		var from, to netip.AddrPort
		err := server.Do(func() error {
			l, err := net.Listen("tcp", net.JoinHostPort(addr, "81"))
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close() })
			return client.Do(func() error {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					return err
				}
				t.Cleanup(func() { c.Close() })
				from, to = netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(l.Addr().String())
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		c := open(t, server)
		wrong := flow{protocol: unix.IPPROTO_TCP, state: stateEstablished, local: to, remote: from}
		var m nfnl.Messages
		wrong.create(&m)
		m.OrFlags(unix.NLM_F_ACK)
		if err := c.Do(&m, nil); err != nil {
			t.Fatal(err)
		}
		if r, err := Seed(c, true); err != nil || r.Made != 0 || r.Turned != 1 {
			t.Errorf("%s: %+v %v", addr, r, err)
		}
		if e, err := find(c, unix.IPPROTO_TCP, to, from); err != nil || e.from != from || e.to != to {
			t.Errorf("%s: %+v %v", addr, e, err)
		}
	}
}

// A UDP server's own packet makes an entry with the ends the wrong way round, a packet of its client does not.
func TestTurnServed(t *testing.T) {
	server, _ := connected(t, 0)
	c := open(t, server)
	own, peer, other := netip.MustParseAddrPort("10.9.0.1:53"), netip.MustParseAddrPort("10.9.0.2:53"), netip.MustParseAddrPort("10.9.0.2:54")
	var m nfnl.Messages
	(&flow{protocol: unix.IPPROTO_UDP, local: own, remote: peer}).create(&m)                    // the server sent first
	(&flow{protocol: unix.IPPROTO_UDP, local: own, remote: other, isIncoming: true}).create(&m) // the client did
	m.OrFlags(unix.NLM_F_ACK)
	if err := c.Do(&m, nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{1, 0} {
		if turned, err := TurnServed(c, []uint16{53, 54}); err != nil || turned != want {
			t.Errorf("turned %d, want %d: %v", turned, want, err)
		}
	}
	for _, from := range []netip.AddrPort{peer, other} {
		if e, err := find(c, unix.IPPROTO_UDP, from, own); err != nil || e.from != from || e.to != own {
			t.Errorf("%+v %v", e, err)
		}
	}
}

func BenchmarkSeed(b *testing.B) {
	for _, n := range []int{0, 100, 1000, 10000} {
		b.Run(fmt.Sprintf("connections=%d", n), func(b *testing.B) {
			server, _ := connected(b, n)
			c := open(b, server)
			for b.Loop() {
				if r, err := Seed(c, true); err != nil || r.Made != n {
					b.Fatal(r, err)
				}
				b.StopTimer()
				flush(b, server)
				b.StartTimer()
			}
		})
	}
}
