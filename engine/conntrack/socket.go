package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// socket is one socket of the namespace.
type socket struct {
	protocol      uint8
	state         uint8
	local, remote netip.AddrPort // remote is the zero value for a socket without a peer
}

// The states of sockets (enum in net/tcp_states.h). A UDP socket has the state established or closed.
const (
	stateEstablished = 1
	stateSynSent     = 2
	stateSynRecv     = 3
	stateClose       = 7
	stateListen      = 10
	stateNewSynRecv  = 12
)

// protocols are those with sockets that policies can tell apart.
var protocols = []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP}

// sockets returns the sockets of all protocols and both families, without those on loopback addresses. A kernel that
// cannot list the sockets of a protocol counts as one that has none.
func sockets(c *netlink.Conn) ([]socket, error) {
	var list []socket
	for _, protocol := range protocols {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			messages, err := c.Execute(netlink.Message{
				Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump},
				Data:   request(family, protocol),
			})
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("list the sockets of protocol %d: %w", protocol, err)
			}
			for _, m := range messages {
				if s, ok := parseSocket(m.Data); ok {
					s.protocol = protocol
					list = append(list, s)
				}
			}
		}
	}
	return list, nil
}

// request is a struct inet_diag_req_v2 (linux/inet_diag.h) for the sockets in all states.
func request(family, protocol uint8) []byte {
	const size = 56
	b := append(make([]byte, 0, size), family, protocol, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, ^uint32(0))
	return b[:size]
}

// parseSocket reads a struct inet_diag_msg (linux/inet_diag.h). It returns false for a socket on a loopback address.
func parseSocket(b []byte) (socket, bool) {
	const size = 72
	if len(b) < size {
		return socket{}, false
	}
	family, state, id := b[0], b[1], b[4:]
	addr := func(at []byte) netip.Addr {
		if family == unix.AF_INET {
			return netip.AddrFrom4([4]byte(at))
		}
		return netip.AddrFrom16([16]byte(at)).Unmap()
	}
	s := socket{
		state:  state,
		local:  netip.AddrPortFrom(addr(id[4:]), binary.BigEndian.Uint16(id)),
		remote: netip.AddrPortFrom(addr(id[20:]), binary.BigEndian.Uint16(id[2:])),
	}
	return s, !s.local.Addr().IsLoopback() && !s.remote.Addr().IsLoopback()
}

// isServer reports whether peers open connections to the socket.
func (s *socket) isServer() bool {
	return s.state == stateListen || s.protocol == unix.IPPROTO_UDP && s.state == stateClose && s.local.Port() != 0
}

// hasPeer reports whether the socket is one end of a connection.
func (s *socket) hasPeer() bool {
	return s.remote.Port() != 0 && !s.remote.Addr().IsUnspecified() && s.state != stateListen && s.state != stateClose
}
