package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
)

// mostSockets bounds the memory for the sockets of a pod. The kernel's default for the entries of a whole node
// (nf_conntrack_max) is at most 262,144.
const mostSockets = 1 << 17

// errTooMany ends the list of sockets or addresses at mostSockets. The sockets up to there are still used.
var errTooMany = fmt.Errorf("the pod has more than %d sockets or addresses", mostSockets)

// socket is a socket of the pod, as sock_diag(7) reports it: a listening socket, a connection, or an unconnected UDP
// socket.
type socket struct {
	protocol uint8
	// state is a TCP state for TCP and UDP (TCP_ESTABLISHED, …), and an enum sctp_state for an SCTP association.
	state         uint8
	local, remote netip.AddrPort // remote is the zero value for a socket without a peer
	tags          tags
}

// tags are the verification tags in the packets of an SCTP association (RFC 9260, section 3.1), by the end that receives
// them.
type tags struct{ local, remote uint32 }

// States of TCP and UDP sockets, and of sockets that listen (enum in linux net/tcp_states.h). A UDP socket has the state
// established if connect(2) gave it a peer, and otherwise the state close.
const (
	stateEstablished = 1
	stateSynSent     = 2
	stateSynRecv     = 3
	stateTimeWait    = 6
	stateClose       = 7
	stateListen      = 10
	stateNewSynRecv  = 12
)

// sctpEstablished is the state of an SCTP association (enum sctp_state in linux net/sctp/constants.h).
const sctpEstablished = 3

// extensionInfo asks for struct sctp_info, whose tags are at these places (linux/sctp.h).
const (
	extensionInfo = 1 << (attributeInfo - 1)
	attributeInfo = 2 // INET_DIAG_INFO
	localTag      = 0
	remoteTag     = 48
)

// protocols are the protocols whose ports a policy can name.
// The list decides which packets need an entry: connections of other protocols are judged by their next packet.
var protocols = []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP}

// sockets returns the sockets of a namespace, without the sockets on loopback addresses, which no policy judges. A
// protocol that the kernel cannot list, such as SCTP without its module, has no sockets. After mostSockets it returns
// the sockets so far and errTooMany.
func sockets(c *nfnl.Conn) ([]socket, error) {
	var list []socket
	for _, protocol := range protocols {
		var extensions uint8
		if protocol == unix.IPPROTO_SCTP {
			extensions = extensionInfo
		}
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			// A connection in TIME-WAIT is over and needs no entry.
			err := c.Sockets(family, protocol, extensions, ^uint32(1<<stateTimeWait), func(message []byte) error {
				if len(list) == mostSockets {
					return errTooMany
				}
				if s, ok := parseSocket(protocol, message); ok {
					list = append(list, s)
				}
				return nil
			})
			switch {
			case errors.Is(err, errTooMany):
				return list, err
			case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL): // no such protocol
			case err != nil:
				return nil, fmt.Errorf("list the sockets of protocol %d: %w", protocol, err)
			}
		}
	}
	return list, nil
}

// parseSocket reads a struct inet_diag_msg (linux/inet_diag.h) and the attributes behind it:
//
//	│ family │ state │ timer │ retrans │ struct inet_diag_sockid, 48 bytes │ … │ attributes
//
// It returns false for a socket on a loopback address.
func parseSocket(protocol uint8, b []byte) (socket, bool) {
	const size = 72
	if len(b) < size {
		return socket{}, false
	}
	family, state, id := b[0], b[1], b[4:]
	addr := func(at []byte) netip.Addr {
		if family == unix.AF_INET {
			return netip.AddrFrom4([4]byte(at))
		}
		// An IPv6 socket with an IPv4 peer has addresses such as ::ffff:10.0.0.1. Its packets are IPv4.
		return netip.AddrFrom16([16]byte(at)).Unmap()
	}
	s := socket{
		protocol: protocol,
		// struct inet_diag_sockid: source port, destination port (2 bytes each, big-endian), source address,
		// destination address (16 bytes each; an IPv4 address fills the first 4).
		state:  state,
		local:  netip.AddrPortFrom(addr(id[4:]), binary.BigEndian.Uint16(id)),
		remote: netip.AddrPortFrom(addr(id[20:]), binary.BigEndian.Uint16(id[2:])),
	}
	if protocol == unix.IPPROTO_SCTP {
		attributes, err := nfnl.ParseAttrs(b[size:])
		if info := attributes[attributeInfo]; err == nil && len(info) >= remoteTag+4 {
			s.tags = tags{binary.NativeEndian.Uint32(info[localTag:]), binary.NativeEndian.Uint32(info[remoteTag:])}
		}
	}
	return s, !s.local.Addr().IsLoopback() && !s.remote.Addr().IsLoopback()
}

// isServer reports whether any peer can send to the socket: it listens, or it is an unconnected UDP socket with a port.
func (s *socket) isServer() bool {
	return s.state == stateListen || s.protocol == unix.IPPROTO_UDP && s.state == stateClose && s.local.Port() != 0
}

// isOpening reports whether the pod is opening the connection now.
func (s *socket) isOpening() bool { return s.protocol == unix.IPPROTO_TCP && s.state == stateSynSent }

// hasPeer reports whether the socket is an end of a connection that packets can belong to.
func (s *socket) hasPeer() bool {
	if s.remote.Port() == 0 || s.remote.Addr().IsUnspecified() || s.isServer() {
		return false
	}
	// Connection tracking compares the verification tag of each packet with the entry. An entry with wrong tags would
	// make every packet of the association invalid, so an association without known tags gets no entry.
	if s.protocol == unix.IPPROTO_SCTP {
		return s.state == sctpEstablished && s.tags != tags{}
	}
	return s.state != stateClose
}
