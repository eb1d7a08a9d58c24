package engine

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/nft"
)

// TestUDPBesideOthers: the peer of a UDP socket was allowed if no rules were in force before. Tables of another program may be the rules
// of another agent, which denies the peer.
func TestUDPBesideOthers(t *testing.T) {
	for name, c := range map[string]struct {
		others func(*testing.T, *lab.Host)
		want   uint64
	}{
		"none": {func(*testing.T, *lab.Host) {}, 1},
		"nftables": {func(t *testing.T, h *lab.Host) {
			nft.MustRun(t, h, "table ip filter { chain MULTI-INGRESS { }; }", "--file", "-")
		}, 0},
		"legacy": {func(t *testing.T, h *lab.Host) { makeLegacyTable(t, h) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h, e := pod(t, lab.ForTest(t), "pod", netip.MustParsePrefix("10.0.0.2/24"))
			if err := h.Do(func() error {
				conn, err := net.Dial("udp", "10.0.0.9:53")
				if err == nil {
					t.Cleanup(func() { conn.Close() })
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			c.others(t, h)
			apply(t, e, isolated(parseAddrs("10.0.0.1"), 80))
			if got := e.Stats().Seeded; got != c.want {
				t.Errorf("%d entries, want %d", got, c.want)
			}
		})
	}
}

// makeLegacyTable makes the table filter of iptables-legacy, as the first use of iptables-legacy does.
func makeLegacyTable(t *testing.T, h *lab.Host) {
	t.Helper()
	const getInfo = 64 // IPT_SO_GET_INFO of linux/netfilter_ipv4/ip_tables.h
	err := h.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		info := [84]byte{} // struct ipt_getinfo, which begins with the name
		copy(info[:], "filter")
		size := uint32(len(info))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_IP, getInfo,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		runtime.KeepAlive(info)
		if errno != 0 {
			return errno
		}
		return nil
	})
	switch {
	case errors.Is(err, unix.ENOPROTOOPT):
		t.Skip("SKIPPED: this kernel has no iptables-legacy")
	case err != nil:
		t.Fatal(err)
	}
}
