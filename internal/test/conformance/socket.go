package conformance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// somePorts are the destination ports that are probed in every case. Random policies name the same ports.
var somePorts = []uint16{1, 53, 80, 81, 443, 8080, 8081, 65535}

const (
	listenBacklog = 4096    // connections that a listener may hold, since none is accepted
	receiveBuffer = 4 << 20 // bytes
	cmsgHeader    = unix.SizeofCmsghdr
)

// receiver is a raw socket. Raw sockets get a packet after the input hook, so an arrival proves that the rules let the
// packet pass.
type receiver struct {
	fd    int
	proto uint8
	v6    bool
}

// listen opens the raw sockets that see incoming packets, and the listeners that answer SYNs.
func (h *host) listen(ports []uint16) error {
	return h.Do(func() error {
		for _, a := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			for _, p := range append([]oracle.Protocol{oracle.ICMP}, oracle.Transports...) {
				fd, err := rawReceiver(a.Is6(), p.Number(a))
				if err != nil {
					return fmt.Errorf("open a raw socket for %s: %w", p, err)
				}
				h.receivers = append(h.receivers, receiver{fd, p.Number(a), a.Is6()})
			}
		}
		for _, port := range ports {
			fd, err := listener(port)
			if err != nil {
				return fmt.Errorf("listen on %d: %w", port, err)
			}
			h.listeners = append(h.listeners, fd)
		}
		return nil
	})
}

// rawReceiver opens a raw socket that reports the receiving interface of each packet in a control message.
// The caller closes it.
func rawReceiver(v6 bool, proto uint8) (int, error) {
	family, level, option := unix.AF_INET, unix.IPPROTO_IP, unix.IP_PKTINFO
	if v6 {
		family, level, option = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(proto))
	if err != nil {
		return -1, err
	}
	err = unix.SetsockoptInt(fd, level, option, 1)
	// A forced size ignores the limit net.core.rmem_max, but needs a privilege that a container may lack.
	if err == nil && unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer) // up to the limit
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// listener opens a listener that answers SYNs in both families. No connection is accepted: the prober sent the SYN from
// a raw socket, so the kernel of the prober resets the connection.
func listener(port uint16) (int, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)) // the servers of flows listen on the same ports
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet6{Port: int(port)})
	}
	if err == nil {
		err = unix.Listen(fd, listenBacklog)
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// sender returns a raw socket that sends packets with their IP header on an interface. It is bound to the interface, so
// the routes do not choose another interface.
// It is opened at the first use and kept until the interface goes.
func (h *host) sender(iface string, v6 bool) (int, error) {
	if fd, ok := h.senders[sender{iface, v6}]; ok {
		return fd, nil
	}
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	fd := -1
	err := h.Do(func() (err error) {
		if fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
			return err
		}
		return errors.Join(unix.BindToDevice(fd, iface), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
	})
	if err != nil {
		// An unbound socket must not be kept: its packets would take any interface.
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
		return -1, fmt.Errorf("open a raw socket on %s of %s: %w", iface, h.Name, err)
	}
	h.senders[sender{iface, v6}] = fd
	return fd, nil
}

// send sends a packet. The result is false when the host's own rules drop the packet: the kernel then reports EPERM.
func (h *host) send(iface string, to netip.Addr, packet []byte) (bool, error) {
	fd, err := h.sender(iface, to.Is6())
	if err != nil {
		return false, err
	}
	var addr unix.Sockaddr
	if to.Is6() {
		addr = &unix.SockaddrInet6{Addr: to.As16()}
	} else {
		addr = &unix.SockaddrInet4{Addr: to.As4()}
	}
	switch err := unix.Sendto(fd, packet, 0, addr); {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EPERM):
		return false, nil
	default:
		return false, fmt.Errorf("send to %s on %s of %s: %w", to, iface, h.Name, err)
	}
}

// drain reads all packets that have arrived, and calls take for each packet of a probe or marker.
// take gets the name of the interface on which the packet arrived, or "" if it is unknown.
func (h *host) drain(take func(h *host, iface string, s sighting)) error {
	// Probes are shorter than the buffers. The end of a longer packet is cut off, and not needed.
	var packet [256]byte
	var control [128]byte
	for _, r := range h.receivers {
		for {
			n, oobn, _, _, err := unix.Recvmsg(r.fd, packet[:], control[:], unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return fmt.Errorf("receive in %s: %w", h.Name, err)
			}
			payload := packet[:n]
			if !r.v6 { // an IPv4 packet comes with its IP header, an IPv6 packet without
				payload = payload[min(n, int(packet[0]&0xf)*4):]
			}
			if s := sight(r.proto, payload); s.kind != nothing {
				take(h, h.indexes[indexOf(control[:oobn], r.v6)], s)
			}
		}
	}
	return nil
}

// indexOf reads the index of the receiving interface from the only control message. The index is the first field of
// struct in_pktinfo, and follows the address in struct in6_pktinfo.
func indexOf(control []byte, v6 bool) int {
	offset := cmsgHeader
	if v6 {
		offset += 16
	}
	if len(control) < offset+4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(control[offset:]))
}
