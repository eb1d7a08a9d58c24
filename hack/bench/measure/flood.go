package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The frames of a flood: an Ethernet, an IPv4 and a UDP header, and padding to the shortest Ethernet frame.
const (
	ethernetLen = 14
	ipv4Len     = 20
	udpLen      = 8
	frameLen    = 60
)

// frame returns a datagram to the server, without a UDP checksum, as IPv4 allows.
func (k *link) frame(from netip.AddrPort, port uint16) []byte {
	f := make([]byte, frameLen)
	copy(f, k.to)
	copy(f[6:], k.from)
	binary.BigEndian.PutUint16(f[12:], unix.ETH_P_IP)
	ip := f[ethernetLen:]
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(ip[2:], frameLen-ethernetLen)
	copy(ip[12:], from.Addr().AsSlice())
	copy(ip[16:], serverAddr.IP)
	// The checksum of the IPv4 header (RFC 791): the one's complement of the sum of its 16-bit words. Its own field
	// is 0 so far.
	var sum uint32
	for i := 0; i < ipv4Len; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum>>16+sum))
	udp := ip[ipv4Len:]
	binary.BigEndian.PutUint16(udp, from.Port())
	binary.BigEndian.PutUint16(udp[2:], port)
	binary.BigEndian.PutUint16(udp[4:], frameLen-ethernetLen-ipv4Len)
	return f
}

// mmsghdr is struct mmsghdr of sendmmsg(2).
// The kernel writes the number of sent bytes into length.
type mmsghdr struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

// sender sends frames out of the client's end of a link. A veth runs the receiver's network stack in the context of the sender.
// So the CPU time of the sender is the whole cost of the packet up to the receiver's socket.
// The file descriptor belongs to the client's namespace, whichever thread uses it.
type sender struct{ fd int }

// newSender opens a packet socket on the client's interface.
func newSender(k *link) (*sender, error) {
	s := &sender{fd: -1}
	err := k.client.Do(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	return s, errors.Join(
		// Without a queueing discipline, the frame goes straight into the veth.
		unix.SetsockoptInt(s.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1),
		unix.Bind(s.fd, &unix.SockaddrLinklayer{Ifindex: k.index}),
	)
}

// prepare returns the arguments of sendmmsg. The caller must keep the frames reachable.
func prepare(frames [][]byte) []mmsghdr {
	list := make([]mmsghdr, len(frames))
	vectors := make([]unix.Iovec, len(frames))
	for i, f := range frames {
		vectors[i].Base = &f[0]
		vectors[i].SetLen(len(f))
		list[i].header.Iov = &vectors[i]
		list[i].header.SetIovlen(1)
	}
	return list
}

// cost is the time of a packet.
// Both are means over a flood. wall also has the time in which another program had the core, cpu does not.
type cost struct{ wall, cpu time.Duration }

// flood sends the whole list the given number of times, and returns the cost of a packet.
func (s *sender) flood(list []mmsghdr, times int) (cost, error) {
	// CPU time is counted by thread, so the goroutine must stay on its thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cpu, start := threadTime(), time.Now()
	for range times {
		// sendmmsg takes at most 1,024 messages in a call, and returns the number that it sent.
		for rest := list; len(rest) > 0; {
			n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&rest[0])), uintptr(len(rest)), 0, 0, 0)
			if errno != 0 {
				return cost{}, fmt.Errorf("sendmmsg: %w", errno)
			}
			rest = rest[n:]
		}
	}
	// The number of packets: both figures are for a single packet.
	n := time.Duration(len(list) * times)
	return cost{wall: time.Since(start) / n, cpu: (threadTime() - cpu) / n}, nil
}

// threadTime returns the CPU time of the calling thread, user and kernel together.
func threadTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// sink is the server's socket. No process reads from it: the kernel drops and counts packets beyond the smallest buffer.
type sink struct{ fd int }

// newSink binds the server's socket to the port on all addresses of the pod.
func newSink(k *link, port uint16) (*sink, error) {
	s := &sink{fd: -1}
	err := k.server.Do(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err == nil {
			err = unix.Bind(s.fd, &unix.SockaddrInet4{Port: int(port)})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	return s, s.buffer(1)
}

// buffer sets the size of the receive buffer in bytes. The kernel raises a smaller size to its minimum.
func (s *sink) buffer(size int) error {
	return unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size)
}

// drain reads the datagrams in the buffer and returns their number. With answer it also answers them, so that the server's
// connection tracking sees an established flow.
func (s *sink) drain(answer bool) (int, error) {
	var buf [frameLen]byte
	for n := 0; ; n++ {
		size, from, err := unix.Recvfrom(s.fd, buf[:], 0)
		if errors.Is(err, unix.EAGAIN) {
			return n, nil
		}
		if err == nil && answer {
			err = unix.Sendto(s.fd, buf[:size], 0, from)
		}
		if err != nil {
			return n, err
		}
	}
}

// dropped returns the number of dropped datagrams so far.
func (s *sink) dropped() (int, error) {
	const drops = 8 // SK_MEMINFO_DROPS
	var info [drops + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, fmt.Errorf("SO_MEMINFO: %w", errno)
	}
	return int(info[drops]), nil
}
