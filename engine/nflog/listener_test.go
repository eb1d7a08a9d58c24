package nflog_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nflog"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/nft"
)

const group = 7

func TestMain(m *testing.M) { lab.Main(m) }

// hosts returns two hosts. The rule of the second reports the UDP packets that it receives.
func hosts(t *testing.T) (from, to *lab.Host) {
	t.Helper()
	l := lab.ForTest(t)
	var list []*lab.Host
	for _, name := range []string{"from", "to"} {
		h, err := l.Host(name, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(len(list) + 1)}), 24))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, h)
	}
	const rules = `table inet t {
		chain c {
			type filter hook prerouting priority 0
			meta l4proto udp log prefix "udp " group 7
			meta l4proto icmp log prefix "other" group 8
		}
	}
	`
	if out, err := nft.Run(list[1], rules, "-f", "-"); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	return list[0], list[1]
}

// TestFlood: packets of the group arrive with their headers. However many a process sends to the group, the reader takes a bounded
// number of them, ends with its context, and the next reader can have the group.
func TestFlood(t *testing.T) {
	from, to := hosts(t)
	for range 2 {
		l, err := nflog.Open(to.NetNS(), group)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nflog.Open(to.NetNS(), group); !errors.Is(err, nflog.ErrBusy) {
			t.Errorf("a second reader: %v", err)
		}
		flood := lab.StartFlood(t, from, netip.MustParseAddrPort("10.9.0.2:9"), lab.ForbiddenPatience)
		var taken, wrong atomic.Int64
		ctx, end := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		err = l.Run(ctx, func(p nflog.Packet) {
			taken.Add(1)
			if p.Prefix != "udp " || p.Headers.Source.String() != "10.9.0.1" || p.Headers.DestinationPort != 9 {
				wrong.Add(1)
			}
		})
		end()
		flood.End()
		if err != nil {
			t.Error(err)
		}
		if n := taken.Load(); n < 100 || n > 301 || wrong.Load() > 0 {
			t.Errorf("%d packets taken of %d sent, %d wrong; want about 100 a second", n, flood.Sent.Load(), wrong.Load())
		}
		if flood.Sent.Load() < 500 { // slow emulators included
			t.Errorf("not a flood: %d packets", flood.Sent.Load())
		}
	}
}

// TestOpen: the agent never listens in its own network namespace.
func TestOpen(t *testing.T) {
	if _, err := nflog.Open("/proc/self/ns/net", group); !errors.Is(err, nfnl.ErrOwnNamespace) {
		t.Errorf("own namespace: %v", err)
	}
	if _, err := nflog.Open("/run/netns/none", group); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no namespace: %v", err)
	}
}
