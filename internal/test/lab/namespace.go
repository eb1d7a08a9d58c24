package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace without a name. It exists as long as its descriptor is open.
// A process that is inside, or a path that is mounted, keeps it too.
type namespace struct {
	ns     netns.NsHandle  // a descriptor
	handle *netlink.Handle // a route socket in the namespace
}

// newNamespace makes a network namespace with lo up and without duplicate address detection.
// The caller must close it.
func newNamespace() (*namespace, error) {
	ns, err := unshareNetNS()
	if err != nil {
		return nil, err
	}
	handle, err := netlink.NewHandleAt(ns)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a route socket: %w", err), ns.Close())
	}
	n := &namespace{ns: ns, handle: handle}
	lo, err := handle.LinkByName("lo")
	if err == nil {
		err = handle.LinkSetUp(lo)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set lo up: %w", err), n.close())
	}
	// Duplicate address detection would delay each new address by a second. This turns it off for link-local addresses. AddAddr
	// turns it off for other addresses.
	err = n.do(func() error {
		return errors.Join(clearSysctl("net/ipv6/conf/default/accept_dad"), clearSysctl("net/ipv6/conf/all/accept_dad"))
	})
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

// clearSysctl sets a sysctl of the thread's network namespace to 0. It ignores a sysctl that does not exist or cannot be
// changed, such as in a container with a read-only /proc/sys.
// A lab works without it, only slower or with other hooks.
func clearSysctl(name string) error {
	err := os.WriteFile("/proc/sys/"+name, []byte("0"), 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		return nil
	}
	return err
}

// unshareNetNS makes a network namespace. The thread is in its old namespace again afterwards.
// The new namespace is empty: it has no addresses, rules or connections.
func unshareNetNS() (netns.NsHandle, error) {
	made := netns.None()
	err := onLockedThread(func() error {
		var err error
		if made, err = netns.New(); err != nil {
			return fmt.Errorf("unshare(CLONE_NEWNET): %w", err)
		}
		return nil
	})
	if err != nil && made.IsOpen() {
		err = errors.Join(err, made.Close())
	}
	return made, err
}

// do runs f on a thread in the namespace.
// The goroutine keeps its thread for as long as f runs, so many calls may run at the same time.
func (n *namespace) do(f func() error) error {
	return onLockedThread(func() error {
		if err := netns.Set(n.ns); err != nil {
			return fmt.Errorf("enter the network namespace: %w", err)
		}
		return f()
	})
}

// onLockedThread runs f on a locked thread, and restores the network namespace of the thread afterwards. f may change it. If the
// restoration fails, the goroutine stays locked to the thread. The thread then ends with the goroutine, and never runs another
// goroutine in the wrong namespace.
func onLockedThread(f func() error) (err error) {
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("get the network namespace of the thread: %w", err)
	}
	defer func() {
		restored := netns.Set(before)
		if restored == nil {
			runtime.UnlockOSThread()
		}
		err = errors.Join(err, restored, before.Close())
	}()
	return f()
}

// waitUp waits until an interface can pass packets: the kernel reports carrier some time after both ends are up.
// It fails after ten seconds with the state in which the interface is.
func (n *namespace) waitUp(ifname string) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		link, err := n.handle.LinkByName(ifname)
		if err != nil {
			return fmt.Errorf("find %s: %w", ifname, err)
		}
		if state := link.Attrs().OperState; state == netlink.OperUp {
			return nil
		} else if time.Now().After(deadline) {
			return fmt.Errorf("%s stays %s", ifname, state)
		}
	}
}

// waitSolicitable waits until the interface is in the solicited-node multicast group of the address (RFC 4291 section 2.7.1).
// The kernel joins the group in a work queue. A neighbor solicitation before that is lost, and the neighbor retries only after a
// second.
func (n *namespace) waitSolicitable(ifname string, addr netip.Addr) error {
	// The group is ff02::1:ff00:0/104 with the last three bytes of the address.
	low := addr.As16()
	want := fmt.Sprintf("ff0200000000000000000001ff%02x%02x%02x", low[13], low[14], low[15])
	return n.do(func() error {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			// The table is that of the thread's namespace. /proc/net would be that of the main thread.
			groups, err := os.ReadFile("/proc/thread-self/net/igmp6")
			if err != nil {
				return fmt.Errorf("read the multicast groups: %w", err)
			}
			for line := range strings.Lines(string(groups)) {
				if f := strings.Fields(line); len(f) > 2 && f[1] == ifname && f[2] == want {
					return nil
				}
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s never joins the multicast group of %s", ifname, addr)
			}
		}
	})
}

// handleFD is the descriptor of the namespace, as netlink attributes want it.
func (n *namespace) handleFD() uintptr { return uintptr(n.ns) }

// close closes the descriptor. Interfaces and rules go with the namespace, unless another descriptor is open.
func (n *namespace) close() error {
	n.handle.Close()
	return n.ns.Close()
}
