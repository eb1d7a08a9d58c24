package nfnl

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// DialSockDiag opens a NETLINK_SOCK_DIAG socket, which lists the sockets of the namespace that netns is a handle of
// (sock_diag(7)). The method Sockets uses it.
func DialSockDiag(netns *os.File) (*Conn, error) { return dialFamily(netns, unix.NETLINK_SOCK_DIAG) }

// DialRoute opens a NETLINK_ROUTE socket, which knows the interfaces and addresses of the namespace that netns is a
// handle of (rtnetlink(7)). The methods Addresses and IsBridgePort use it.
func DialRoute(netns *os.File) (*Conn, error) { return dialFamily(netns, unix.NETLINK_ROUTE) }

// Addresses calls visit with each address of the namespace's interfaces. The Conn must come from DialRoute. An error of visit ends
// the list.
func (c *Conn) Addresses(visit func(netip.Addr) error) error {
	var m Messages
	m.labels = append(m.labels, Label{Op: "RTM_GETADDR"})
	m.beginHeader(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	// A struct ifaddrmsg of zeros asks for the addresses of all families and interfaces.
	m.Raw(make([]byte, unix.SizeofIfAddrmsg))
	m.End()
	return c.dump(&m, unix.RTM_NEWADDR, func(a Answer) error {
		attributes, err := ParseAttrs(a.Body[min(len(a.Body), unix.SizeofIfAddrmsg):])
		if err != nil {
			return err
		}
		local := attributes[unix.IFA_LOCAL]
		if local == nil { // IPv6 has it only for tunnels
			local = attributes[unix.IFA_ADDRESS]
		}
		addr, ok := netip.AddrFromSlice(local)
		if !ok {
			return nil
		}
		return visit(addr)
	})
}

// Constants of linux/if_link.h and linux/rtnetlink.h that x/sys lacks.
const (
	skipStatistics = 1 << 3   // RTEXT_FILTER_SKIP_STATS
	bridgePort     = "bridge" // IFLA_INFO_SLAVE_KIND of the ports of a bridge
)

// IsBridgePort reports whether any of the names is the name of a bridge's port. It costs a question for each name, whatever
// else is in the namespace: root in a pod can make thousands of interfaces, and a dump would list them all. The Conn must come
// from DialRoute.
func (c *Conn) IsBridgePort(names ...string) (is bool, err error) {
	for _, name := range names {
		var m Messages
		m.labels = append(m.labels, Label{Op: "RTM_GETLINK", Object: name})
		m.beginHeader(unix.RTM_GETLINK, 0)
		m.Raw(make([]byte, unix.SizeofIfInfomsg))
		m.Text(unix.IFLA_IFNAME, name)
		// Without this flag the kernel counts and sends the statistics of each interface.
		m.Data(unix.IFLA_EXT_MASK, binary.NativeEndian.AppendUint32(nil, skipStatistics))
		m.End()
		err := c.dump(&m, unix.RTM_NEWLINK, func(a Answer) error {
			attributes, err := ParseAttrs(a.Body[min(len(a.Body), unix.SizeofIfInfomsg):])
			if err != nil {
				return err
			}
			info, err := ParseAttrs(attributes[unix.IFLA_LINKINFO])
			is = is || info.Text(unix.IFLA_INFO_SLAVE_KIND) == bridgePort
			return err
		})
		// ENODEV: no interface has the name.
		if is || err != nil && !errors.Is(err, unix.ENODEV) {
			return is, err
		}
	}
	return false, nil
}

// Sockets calls visit with a struct inet_diag_msg, and the attributes behind it, for each socket of an address family
// (AF_INET, AF_INET6) and transport protocol. states is a bit for each state that the caller wants (1 << TCP_LISTEN), and
// extensions a bit for each attribute (1 << (INET_DIAG_INFO - 1)); see linux/inet_diag.h. The Conn must come from
// DialSockDiag. An error of visit ends the list.
func (c *Conn) Sockets(family, protocol, extensions uint8, states uint32, visit func(message []byte) error) error {
	// Zeros in place of the ends of a socket, because the question is about all sockets.
	const rest = 48 // of struct inet_diag_req_v2: the ends of a single socket
	var m Messages
	m.labels = append(m.labels, Label{Op: "SOCK_DIAG_BY_FAMILY"})
	m.beginHeader(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	m.Raw([]byte{family, protocol, extensions, 0})
	m.Raw(binary.NativeEndian.AppendUint32(nil, states))
	m.Raw(make([]byte, rest))
	m.End()
	return c.dump(&m, unix.SOCK_DIAG_BY_FAMILY, func(a Answer) error { return visit(a.Body) })
}
