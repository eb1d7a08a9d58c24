package nfnl

import (
	"errors"
	"fmt"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// DialKernel opens a socket of a netlink family in the namespace that netns is a handle of. Only the kernel can send to the port of
// the socket. netlink.Dial enters the namespace only for socket(2): a socket belongs for its whole life to the namespace that it
// was opened in.
//
// A process with CAP_NET_ADMIN in the namespace may send to the port of any socket there. It could forge answers of the kernel, and
// parts of a message without an end, which a reader collects until its memory is full. The kernel refuses to deliver its messages to
// a socket that is connected to the kernel. Messages to a multicast group are delivered anyway, see ReceiveEvents.
func DialKernel(netns *os.File, family int) (*netlink.Conn, error) {
	conn, err := netlink.Dial(family, &netlink.Config{NetNS: int(netns.Fd())})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		var connected error
		err = raw.Control(func(fd uintptr) { connected = connectToKernel(int(fd)) })
		err = errors.Join(err, connected)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect netlink socket to the kernel: %w", err), conn.Close())
	}
	return conn, nil
}

// connectToKernel connects the socket, and discards the messages that came before.
func connectToKernel(fd int) error {
	if err := unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for {
		_, _, err := unix.Recvfrom(fd, nil, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		}
	}
}

// ErrForged means that another process has sent a datagram to a multicast group. CAP_NET_ADMIN in the namespace is enough for that.
var ErrForged = errors.New("a process there sends forged events of the kernel")

// ReceiveEvents waits until the deadline of the connection for a datagram, and reads it into buf. The error is ErrForged if the kernel
// has not sent it. A caller that goes on after ErrForged has no bound on its CPU time.
func ReceiveEvents(conn *netlink.Conn, buf []byte) (n int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var from unix.Sockaddr
	waited := raw.Read(func(fd uintptr) bool {
		n, from, err = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if err := errors.Join(waited, err); err != nil {
		return 0, err
	}
	if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
		return 0, ErrForged
	}
	return n, nil
}
