package conntrack

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// flow is a connection of the pod, as a socket of the pod and the listening sockets beside it show it.
type flow struct {
	protocol      uint8
	state         uint8 // of the pod's socket: a TCP state (stateEstablished, …), for SCTP always sctpEstablished
	local, remote netip.AddrPort
	isIncoming    bool // the remote end opened the connection
	tags          tags // the zero value unless the protocol is SCTP
}

// original returns both ends in the direction of the first packet of the connection, the "original" direction of
// connection tracking.
func (f *flow) original() (from, to netip.AddrPort) {
	if f.isIncoming {
		return f.remote, f.local
	}
	return f.local, f.remote
}

// The default range of ports that the kernel chooses from for a client (net.ipv4.ip_local_port_range). A pod may have
// another range. Then a connection to a local port without a listening socket may count for the wrong end.
const (
	firstEphemeral = 32768
	lastEphemeral  = 60999
)

func isEphemeral(port uint16) bool { return port >= firstEphemeral && port <= lastEphemeral }

// endpoint is the local end of a listening socket. The address may be unspecified: the socket then listens on all
// addresses.
type endpoint struct {
	protocol uint8
	addr     netip.AddrPort
}

// flows returns the connections of the sockets. A socket does not tell which end opened its connection. If another socket
// listens on the local end, the remote end opened the connection. A server can close its listening socket before its
// connections end; then the remote end opened the connection if only the remote port is in the range that the kernel chooses from.
// Listening sockets come in any order among the others, so they are collected first.
func flows(sockets []socket) []flow {
	listening := map[endpoint]bool{}
	for _, s := range sockets {
		if s.isServer() {
			listening[endpoint{s.protocol, s.local}] = true
		}
	}
	var list []flow
	for _, s := range sockets {
		if !s.hasPeer() {
			continue
		}
		f := flow{protocol: s.protocol, state: s.state, local: s.local, remote: s.remote, tags: s.tags}
		isServed := isListening(listening, s) || !isEphemeral(s.local.Port()) && isEphemeral(s.remote.Port())
		// A socket in the state SYN-SENT has sent the first packet itself, even if another socket listens on its port
		// (a simultaneous open, or a client that binds its server's port).
		f.isIncoming = isServed && !s.isOpening()
		list = append(list, f)
	}
	return list
}

// isListening reports whether a socket listens on the local end of another socket. A socket that listens on all addresses of
// IPv6 usually listens on all addresses of IPv4 as well.
func isListening(listening map[endpoint]bool, s socket) bool {
	addrs := []netip.Addr{s.local.Addr(), netip.IPv6Unspecified()}
	if s.local.Addr().Is4() {
		addrs = append(addrs, netip.IPv4Unspecified())
	}
	for _, addr := range addrs {
		if listening[endpoint{s.protocol, netip.AddrPortFrom(addr, s.local.Port())}] {
			return true
		}
	}
	return false
}

// servedPorts returns the ports of UDP sockets that receive from everybody, each port once. A port in the ephemeral
// range belongs to a client: the kernel chose it when the client sent its first packet without bind(2).
func servedPorts(sockets []socket) []uint16 {
	var ports []uint16
	seen := map[uint16]bool{}
	for _, s := range sockets {
		port := s.local.Port()
		if s.protocol == unix.IPPROTO_UDP && s.isServer() && !isEphemeral(port) && !seen[port] {
			seen[port] = true
			ports = append(ports, port)
		}
	}
	return ports
}
