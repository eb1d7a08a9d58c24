package conformance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// somePorts are the destination ports that are always probed.
var somePorts = []uint16{1, 53, 80, 81, 443, 8080, 8081, 65535}

const (
	listenBacklog = 4096
	receiveBuffer = 4 << 20
	cmsgHeader    = unix.SizeofCmsghdr
)

// receiver is a raw socket. What it sees has passed the input hook.
type receiver struct {
	fd    int
	proto uint8
	v6    bool
}

// listen opens the sockets that see incoming packets, and the sockets that answer SYNs.
func (h *host) listen(ports []uint16) error {
	return h.Do(func() error {
		for _, a := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			for _, p := range append([]Protocol{ICMP}, transports...) {
				fd, err := rawReceiver(a.Is6(), p.number(a))
				if err != nil {
					return fmt.Errorf("open a raw socket for %s: %w", p, err)
				}
				h.receivers = append(h.receivers, receiver{fd, p.number(a), a.Is6()})
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
	if err == nil && unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer) // as much as may be
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// listener answers SYNs in both families. Nobody accepts: the other side resets what it did not ask for.
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

// sender returns a raw socket that sends whole packets on an interface.
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
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
		return -1, fmt.Errorf("open a raw socket on %s of %s: %w", iface, h.Name, err)
	}
	h.senders[sender{iface, v6}] = fd
	return fd, nil
}

// send is false when the host's own rules refuse the packet.
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

// drain reads all that has come in.
func (h *host) drain(take func(h *host, iface string, s sighting)) error {
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
			if !r.v6 { // comes with its IP header
				payload = payload[min(n, int(packet[0]&0xf)*4):]
			}
			if s := sight(r.proto, payload); s.kind != nothing {
				take(h, h.indexes[indexOf(control[:oobn], r.v6)], s)
			}
		}
	}
	return nil
}

// indexOf reads the index of the interface from the only control message: struct in_pktinfo begins with it, struct
// in6_pktinfo has it behind the address.
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
