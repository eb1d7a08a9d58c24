package conntrack

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// flow is one connection of a pod.
type flow struct {
	protocol      uint8
	state         uint8 // of the pod's socket
	local, remote netip.AddrPort
	isIncoming    bool // the remote end opened it
}

// ephemeral is the default range of ports that the kernel chooses from for a client (net.ipv4.ip_local_port_range).
const (
	firstEphemeral = 32768
	lastEphemeral  = 60999
)

func isEphemeral(port uint16) bool { return port >= firstEphemeral && port <= lastEphemeral }

// flows returns the connections that the sockets belong to. A socket does not tell who opened its connection. If another
// socket listens on its port, the remote end did. If none does, the server may have closed it; then the ports decide.
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
		f := flow{protocol: s.protocol, state: s.state, local: s.local, remote: s.remote}
		f.isIncoming = s.state != stateSynSent && (isListening(listening, s) || !isEphemeral(s.local.Port()) && isEphemeral(s.remote.Port()))
		list = append(list, f)
	}
	return list
}

// endpoint is where a socket receives.
type endpoint struct {
	protocol uint8
	addr     netip.AddrPort
}

// isListening reports whether a socket listens on the local end of another. One that listens on all addresses of IPv6
// most often listens on those of IPv4 as well.
func isListening(listening map[endpoint]bool, s socket) bool {
	for _, addr := range []netip.Addr{s.local.Addr(), netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if listening[endpoint{s.protocol, netip.AddrPortFrom(addr, s.local.Port())}] {
			return true
		}
	}
	return false
}

// servedPorts returns the ports of UDP sockets that answer to anybody. Such a socket does not tell who its peers are.
func servedPorts(sockets []socket) map[uint16]bool {
	ports := map[uint16]bool{}
	for _, s := range sockets {
		if s.protocol == unix.IPPROTO_UDP && s.isServer() && !isEphemeral(s.local.Port()) {
			ports[s.local.Port()] = true
		}
	}
	return ports
}

// original returns both ends in the order of the connection's first packet: who opened it, and who accepted it.
func (f *flow) original() (from, to netip.AddrPort) {
	if f.isIncoming {
		return f.remote, f.local
	}
	return f.local, f.remote
}
