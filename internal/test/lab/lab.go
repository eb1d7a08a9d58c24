package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
)

// DefaultBridge is the bridge of the interface net1 of each host.
const DefaultBridge = "br0"

// firstPortIndex is greater than any interface index in a host.
const firstPortIndex = 1000

// Lab is a network: a namespace with bridges, and the hosts on these bridges. It is safe for concurrent use.
// A picture of a lab with two hosts:
//
//	host web         fabric          host db
//	net1 ─── port1 ─ br0 ─ port2 ─── net1
type Lab struct {
	mu sync.Mutex // guards the fields below
	// The fabric has a namespace of its own, so packets of a lab never touch the machine's interfaces.
	fabric  *namespace
	bridges map[string]netlink.Link // by name
	hosts   []*Host
	// The number of veth pairs so far. It makes the names on the fabric's side unique.
	ports int
}

// New makes a lab with no hosts.
// The caller must close the lab. It needs CAP_SYS_ADMIN, see Reexec.
func New() (*Lab, error) {
	fabric, err := newNamespace()
	if err != nil {
		return nil, fmt.Errorf("make the network namespace of the bridges: %w", err)
	}
	// If br_netfilter is loaded, bridged packets would pass the netfilter hooks of the fabric too. A lab tests the hooks of its
	// hosts only.
	err = fabric.do(func() error {
		return errors.Join(
			clearSysctl("net/bridge/bridge-nf-call-iptables"),
			clearSysctl("net/bridge/bridge-nf-call-ip6tables"),
			clearSysctl("net/bridge/bridge-nf-call-arptables"),
		)
	})
	if err != nil {
		return nil, errors.Join(err, fabric.close())
	}
	return &Lab{fabric: fabric, bridges: map[string]netlink.Link{}}, nil
}

// TB is the part of testing.TB that labs need. The demo uses labs too, and the product must not link package testing.
// The methods mean the same as in package testing.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// ForTest is New for a test: it fails the test when the lab cannot be made and closes the lab with the test.
// The test is skipped if labs are switched off, see noLabsVar.
func ForTest(t TB) *Lab {
	t.Helper()
	if s, ok := t.(interface{ Skip(args ...any) }); ok && os.Getenv(noLabsVar) != "" {
		s.Skip("SKIPPED: " + noLabsVar + " is set")
	}
	l, err := New()
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Fatalf("close the lab: %v", err)
		}
	})
	return l
}

// Host makes a network namespace with an interface net1 on the default bridge that has these addresses.
// name is for messages and need not be unique. A host ends with its lab.
func (l *Lab) Host(name string, prefixes ...netip.Prefix) (*Host, error) {
	h, err := l.Bare(name)
	if err != nil {
		return nil, err
	}
	if err := h.Attach(DefaultBridge, "net1", prefixes...); err != nil {
		return nil, err
	}
	return h, nil
}

// Bare makes a host with only the interface lo. Attach adds others.
// A test gives it interfaces at the time of its choice, as a hot plug does.
func (l *Lab) Bare(name string) (*Host, error) {
	ns, err := newNamespace()
	if err != nil {
		return nil, fmt.Errorf("make the network namespace of %s: %w", name, err)
	}
	h := &Host{Name: name, lab: l, ns: ns}
	l.mu.Lock()
	l.hosts = append(l.hosts, h)
	l.mu.Unlock()
	return h, nil
}

// Close stops all servers and closes the descriptors of all namespaces. The kernel then removes the namespaces with their
// interfaces.
func (l *Lab) Close() error {
	l.mu.Lock()
	hosts := l.hosts
	l.hosts = nil
	l.mu.Unlock()
	var errs []error
	for _, h := range hosts {
		errs = append(errs, h.close())
	}
	return errors.Join(append(errs, l.fabric.close())...)
}

// bridge returns the bridge with a name. It makes the bridge on its first use. The caller holds l.mu.
func (l *Lab) bridge(name string) (netlink.Link, error) {
	if link, ok := l.bridges[name]; ok {
		return link, nil
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	link := &netlink.Bridge{LinkAttrs: attrs}
	if err := l.fabric.handle.LinkAdd(link); err != nil {
		return nil, fmt.Errorf("add bridge %s: %w", name, err)
	}
	if err := l.fabric.handle.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set bridge %s up: %w", name, err)
	}
	l.bridges[name] = link
	return link, nil
}

// plug makes a veth pair. The end port is on the bridge, and the end ifname is in ns.
// The interface is down in ns until the caller sets it up.
func (l *Lab) plug(bridge, ifname string, ns *namespace) (port string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	master, err := l.bridge(bridge)
	if err != nil {
		return "", err
	}
	l.ports++
	attrs := netlink.NewLinkAttrs()
	attrs.Name = fmt.Sprintf("port%d", l.ports)
	attrs.MasterIndex = master.Attrs().Index
	// If the index of the port differs from the index of its peer, the kernel reports the carrier to the bridge at once.
	// Otherwise this may take a second.
	attrs.Index = firstPortIndex + l.ports
	veth := netlink.NewVeth(attrs)
	veth.PeerName = ifname
	veth.PeerNamespace = netlink.NsFd(int(ns.handleFD()))
	if err := l.fabric.handle.LinkAdd(veth); err != nil {
		return "", fmt.Errorf("add veth pair %s, %s: %w", attrs.Name, ifname, err)
	}
	if err := l.fabric.handle.LinkSetUp(veth); err != nil {
		return "", fmt.Errorf("set %s up: %w", attrs.Name, err)
	}
	return attrs.Name, nil
}
