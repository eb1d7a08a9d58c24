package main

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// socket is a bare nfnetlink socket.
// in is the receive buffer. It is large enough for an answer to a dump, which the kernel sends in pieces of up to 32
// KiB.
type socket struct {
	fd int
	in []byte
}

// largestBatch is larger than every batch.
// The kernel refuses a message that does not fit into the send buffer.
const largestBatch = 64 << 20

// openSocket opens the socket in the namespace of the host. Its descriptor then works in every thread.
func openSocket(h *lab.Host) (*socket, error) {
	s := &socket{fd: -1, in: make([]byte, 64<<10)}
	err := h.Do(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("nfnetlink socket: %w", err)
	}
	for _, option := range []int{unix.SO_SNDBUF, unix.SO_SNDBUFFORCE} { // SO_SNDBUFFORCE may be forbidden
		err = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, option, largestBatch)
	}
	if err != nil {
		err = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, largestBatch)
	}
	if err != nil {
		return nil, fmt.Errorf("nfnetlink send buffer: %w", err)
	}
	return s, nil
}

// exchange sends a batch and reads the acknowledgement, with a system call each: the floor.
// The kernel carries out the batch before write returns, so read does not wait. The first error of the kernel is
// returned, with the number of the message that it refuses.
func (s *socket) exchange(batch []byte) error {
	if _, err := unix.Write(s.fd, batch); err != nil {
		return fmt.Errorf("send %d bytes: %w", len(batch), err)
	}
	n, err := unix.Read(s.fd, s.in)
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	// An acknowledgement is an error message with the number 0.
	eachMessage(s.in[:n], func(typ uint16, seq uint32, body []byte) {
		if errno := -int32(binary.NativeEndian.Uint32(body)); typ == unix.NLMSG_ERROR && errno != 0 && err == nil {
			err = fmt.Errorf("message %d of the batch: %w", seq, unix.Errno(errno))
		}
	})
	return err
}

// dump sends a request and calls visit with each answer.
// The answers come in several reads; the last of them has the message NLMSG_DONE. visit may be nil, and must not keep
// body.
func (s *socket) dump(question []byte, visit func(body []byte)) error {
	if _, err := unix.Write(s.fd, question); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	for done := false; !done; {
		n, err := unix.Read(s.fd, s.in)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		eachMessage(s.in[:n], func(typ uint16, _ uint32, body []byte) {
			switch typ {
			case unix.NLMSG_DONE:
				done = true
			case unix.NLMSG_ERROR:
				done, err = true, unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
			default:
				if visit != nil {
					visit(body)
				}
			}
		})
		if err != nil {
			return fmt.Errorf("dump: %w", err)
		}
	}
	return nil
}

// close closes the socket and waits until the kernel has freed the deleted objects of the namespace.
func (s *socket) close() error { return unix.Close(s.fd) }
