package conntrack

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFlows(t *testing.T) {
	const tcp, udp, sctp = unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP
	sock := func(protocol, state uint8, local, remote string) socket {
		s := socket{protocol: protocol, state: state, local: netip.MustParseAddrPort(local), tags: tags{1, 2}}
		if remote != "" {
			s.remote = netip.MustParseAddrPort(remote)
		}
		return s
	}
	listener := sock(tcp, stateListen, "10.0.0.1:80", "")
	for _, c := range []struct {
		name     string
		sockets  []socket
		incoming bool
	}{
		{"a socket listens", []socket{listener, sock(tcp, stateEstablished, "10.0.0.1:80", "10.0.0.2:80")}, true},
		{"a socket listens on all addresses", []socket{sock(tcp, stateListen, "0.0.0.0:80", ""), sock(tcp, stateEstablished, "10.0.0.1:80", "10.0.0.2:80")}, true},
		{"a socket listens on both families", []socket{sock(tcp, stateListen, "[::]:80", ""), sock(tcp, stateEstablished, "10.0.0.1:80", "10.0.0.2:80")}, true},
		{"a socket listens on all addresses of the other family", []socket{sock(tcp, stateListen, "0.0.0.0:80", ""), sock(tcp, stateEstablished, "[fd00::1]:80", "[fd00::2]:80")}, false},
		{"a socket listens on another port", []socket{listener, sock(tcp, stateEstablished, "10.0.0.1:40000", "10.0.0.2:80")}, false},
		{"a socket listens on another address", []socket{listener, sock(tcp, stateEstablished, "10.0.0.3:80", "10.0.0.2:80")}, false},
		{"a socket of another protocol listens", []socket{listener, sock(sctp, sctpEstablished, "10.0.0.1:80", "10.0.0.2:80")}, false},
		{"the listener is closed", []socket{sock(tcp, stateEstablished, "10.0.0.1:80", "10.0.0.2:40000")}, true},
		{"the pod listens, and opens a connection from the same port", []socket{listener, sock(tcp, stateSynSent, "10.0.0.1:80", "10.0.0.2:80")}, false},
		{"UDP server", []socket{sock(udp, stateClose, "0.0.0.0:53", ""), sock(udp, stateEstablished, "10.0.0.1:53", "10.0.0.2:53")}, true},
		{"UDP client", []socket{sock(udp, stateEstablished, "10.0.0.1:40000", "10.0.0.2:53")}, false},
	} {
		list := flows(c.sockets)
		if len(list) != 1 || list[0].isIncoming != c.incoming {
			t.Errorf("%s: %+v", c.name, list)
		}
	}
	none := []socket{
		listener, sock(udp, stateClose, "0.0.0.0:53", ""), sock(tcp, stateClose, "10.0.0.1:80", "10.0.0.2:40000"),
		{protocol: sctp, state: sctpEstablished, local: netip.MustParseAddrPort("10.0.0.1:1"), remote: netip.MustParseAddrPort("10.0.0.2:1")}, // no tags
	}
	if list := flows(none); len(list) > 0 {
		t.Errorf("connections: %+v", list)
	}
	ports := servedPorts([]socket{listener, none[1], none[1], sock(udp, stateClose, "0.0.0.0:40000", ""), sock(udp, stateEstablished, "10.0.0.1:54", "10.0.0.2:53")})
	if len(ports) != 1 || ports[0] != 53 {
		t.Errorf("served ports: %v", ports)
	}
}
