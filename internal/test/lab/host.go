package lab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Host is a network namespace in the place of a pod. It is safe for concurrent use.
type Host struct {
	// Name is only for messages.
	Name string

	// The lab whose fabric has the other ends of the interfaces.
	lab *Lab
	ns  *namespace

	mu      sync.Mutex     // guards the fields below
	device  string         // the host's sockets are bound to it; empty: to none
	servers []io.Closer    // closed with the host
	serving sync.WaitGroup // the goroutines of the servers
	closed  bool
}

// Attach adds an interface to the host, on a bridge. It makes the bridge if it does not exist.
// It returns when the interface passes packets. A prefix is the address and the length of its network.
func (h *Host) Attach(bridge, ifname string, prefixes ...netip.Prefix) error {
	port, err := h.lab.plug(bridge, ifname, h.ns)
	if err != nil {
		return fmt.Errorf("attach %s of %s to %s: %w", ifname, h.Name, bridge, err)
	}
	link, err := h.ns.handle.LinkByName(ifname)
	if err != nil {
		return fmt.Errorf("find %s of %s: %w", ifname, h.Name, err)
	}
	if err := h.ns.handle.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s of %s up: %w", ifname, h.Name, err)
	}
	for _, p := range prefixes {
		if err := h.AddAddr(ifname, p); err != nil {
			return err
		}
	}
	// A packet that is sent before both ends have carrier is lost, and a test would take it for a drop.
	return errors.Join(h.lab.fabric.waitUp(port), h.ns.waitUp(ifname))
}

// Detach removes an interface.
// The other end on the bridge goes with it, as both are a veth pair.
func (h *Host) Detach(ifname string) error {
	link, err := h.ns.handle.LinkByName(ifname)
	if err == nil {
		err = h.ns.handle.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("detach %s of %s: %w", ifname, h.Name, err)
	}
	return nil
}

// AddAddr adds an address to an interface. The address can be used at once.
// IPv6 addresses skip duplicate address detection.
func (h *Host) AddAddr(ifname string, p netip.Prefix) error {
	link, err := h.ns.handle.LinkByName(ifname)
	if err == nil {
		bits := 8 * len(p.Addr().AsSlice())
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), bits)}}
		if p.Addr().Is6() {
			// An address in duplicate address detection is tentative: the kernel does not use it yet.
			addr.Flags = unix.IFA_F_NODAD
		}
		err = h.ns.handle.AddrAdd(link, addr)
	}
	if err == nil && p.Addr().Is6() {
		err = h.ns.waitSolicitable(ifname, p.Addr())
	}
	if err != nil {
		return fmt.Errorf("add %s to %s of %s: %w", p, ifname, h.Name, err)
	}
	return nil
}

// BindTo binds the sockets of later probes and servers of the host to an interface, such as a VRF.
// Sockets that are open already stay as they are.
func (h *Host) BindTo(ifname string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.device = ifname
}

// bindSocket binds a socket to the interface that BindTo names.
func (h *Host) bindSocket(fd int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.device == "" {
		return nil
	}
	return unix.BindToDevice(fd, h.device)
}

// Do runs f on a thread in the host's namespace. Sockets that f opens stay in the namespace after Do returns. Goroutines that f
// starts do not run in the namespace.
func (h *Host) Do(f func() error) error {
	if err := h.ns.do(f); err != nil {
		return fmt.Errorf("in %s: %w", h.Name, err)
	}
	return nil
}

// NetNS returns the path of the host's namespace. It works in all threads of this process, but not in other processes, until the
// lab is closed.
// The path is a descriptor of this process, so a child process must replace "self" by the process ID of its parent.
func (h *Host) NetNS() string { return fmt.Sprintf("/proc/self/fd/%d", h.ns.handleFD()) }

// keep makes the host the owner of a server, which it closes at its end. If the host is closed already, it closes the server and
// returns an error.
func (h *Host) keep(server io.Closer) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errors.Join(fmt.Errorf("%s is closed", h.Name), server.Close())
	}
	h.servers = append(h.servers, server)
	return nil
}

// close closes the servers and waits for their goroutines before it closes the namespace.
// It returns all errors. A host must not be used afterwards.
func (h *Host) close() error {
	h.mu.Lock()
	servers := h.servers
	h.servers, h.closed = nil, true
	h.mu.Unlock()
	var errs []error
	for _, s := range servers {
		errs = append(errs, s.Close())
	}
	h.serving.Wait()
	return errors.Join(append(errs, h.ns.close())...)
}

// AtOtherEnd calls f with the other end of an interface, which is outside the host, as the representor of a pod's interface is on a
// node, and with a handle of its namespace.
func (h *Host) AtOtherEnd(ifname string, f func(*netlink.Handle, netlink.Link) error) error {
	link, err := h.ns.handle.LinkByName(ifname)
	if err != nil {
		return fmt.Errorf("find %s of %s: %w", ifname, h.Name, err)
	}
	other, err := h.lab.fabric.handle.LinkByIndex(link.Attrs().ParentIndex)
	if err != nil {
		return fmt.Errorf("find the other end of %s of %s: %w", ifname, h.Name, err)
	}
	return f(h.lab.fabric.handle, other)
}
