package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NFTPortsRefused is the message of a test that skips stock nft because LoadsNFTPorts returned false.
const NFTPortsRefused = "SKIPPED in part: this kernel refuses the rule that nft 1.0.6 makes of `th dport . meta l4proto @ports`"

// LoadsNFTPorts reports whether the kernel loads the rule that nft 1.0.6 makes of a lookup in an interval set of ports. The rule
// swaps the bytes of the protocol, which has one byte, in units of two. Linux 6.12.118 refuses this expression.
func LoadsNFTPorts(t TB, h *Host) bool {
	t.Helper()
	err := h.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		const register = 9 // the second field of a concatenation
		// The table is in the same batch as its deletion, so nothing stays, whether the kernel takes the batch or not.
		table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "probe"})
		c.AddRule(&nftables.Rule{
			Table: table,
			Chain: c.AddChain(&nftables.Chain{Table: table, Name: "probe"}),
			Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
				&expr.Byteorder{SourceRegister: register, DestRegister: register, Op: expr.ByteorderHton, Len: 1, Size: 2},
			},
		})
		c.DelTable(table)
		return c.Flush()
	})
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatalf("probe for rules of nft: %v", err)
	}
	return err == nil
}

// KernelAtLeast reports whether the running kernel has at least this version.
func KernelAtLeast(t TB, major, minor int) bool {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatalf("version of the kernel: %v", err)
	}
	// The version may have any suffix, such as "6.12.118-generic".
	var is [2]int
	release := unix.ByteSliceToString(name.Release[:])
	if _, err := fmt.Sscanf(release, "%d.%d", &is[0], &is[1]); err != nil {
		t.Fatalf("version of the kernel %s: %v", release, err)
	}
	return is[0] > major || is[0] == major && is[1] >= minor
}

// HasDevices reports whether the kernel makes devices of a type: "vlan", "vrf" or "bond".
// A kind beyond these three fails the test. An error other than a missing driver does too.
func HasDevices(t TB, kind string) bool {
	t.Helper()
	// The devices vanish with the lab.
	l := ForTest(t)
	h, err := l.Host("probe")
	if err == nil {
		var parent netlink.Link
		if parent, err = h.ns.handle.LinkByName("net1"); err == nil {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "probe"
			var device netlink.Link
			switch kind {
			case "vlan":
				attrs.ParentIndex = parent.Attrs().Index
				device = &netlink.Vlan{LinkAttrs: attrs, VlanId: 1}
			case "vrf":
				device = &netlink.Vrf{LinkAttrs: attrs, Table: 1}
			case "bond":
				device = netlink.NewLinkBond(attrs)
			default:
				t.Fatalf("devices of type %q", kind)
			}
			err = h.ns.handle.LinkAdd(device)
			if errors.Is(err, unix.EOPNOTSUPP) {
				return false
			}
		}
	}
	if err != nil {
		t.Fatalf("probe for devices of type %s: %v", kind, err)
	}
	return true
}

// HasBridgeNetfilter reports whether br_netfilter is loaded, as on most nodes of Kubernetes. Frames in the bridges of network
// namespaces then pass the hooks of IP as well, unless a sysctl says otherwise.
func HasBridgeNetfilter(t TB) bool {
	t.Helper()
	_, err := os.Stat("/proc/sys/net/bridge/bridge-nf-call-iptables")
	if err != nil {
		t.Logf("SKIPPED in part: br_netfilter is not loaded: %v", err)
	}
	return err == nil
}

// LosesLookups reports whether a lookup in an interval set may find nothing while another CPU replaces the range that has the
// address. The lookup reads the generation before the commit, and the tree after it. Stock nft loses packets the same way:
// see "Kernels" in docs/nftables.md.
func LosesLookups(t TB) bool {
	t.Helper()
	return runtime.NumCPU() > 1 && !KernelAtLeast(t, 6, 18)
}
