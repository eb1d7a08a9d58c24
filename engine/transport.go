package engine

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// transport is one lasting NETLINK_NETFILTER socket in one network namespace. It stays open for the pod's life: the
// close of a socket waits for the kernel to free what was deleted in the namespace, which takes milliseconds.
type transport struct {
	conn   *netlink.Conn
	fd     int    // of conn, -1 once that is closed: an Engine does one thing at a time, and close is one
	port   uint32 // of the socket: what the kernel calls the owner of a table
	sndbuf int
	rcvbuf int
}

// Sizes of socket buffers, bytes. Nothing is reserved: they are limits. The kernel answers a batch before the send
// returns, so all the echoes of its rules must fit the receive buffer, else they are lost (ENOBUFS).
const (
	receiveBuffer  = 8 << 20
	minimumSndbuf  = 1 << 20
	maximumMessage = 64 << 10 // of one receive; the kernel builds replies of at most 32 KiB
	maximumEcho    = 2 << 10  // of one rule; the kernel doubles the limit for its own overhead
)

// reopen replaces the socket by a new one in the same namespace. That ends an unfinished dump, during which the kernel
// accepts no other dump on the socket. A table that the old socket owned becomes an orphan. If reopen fails, it closes the
// transport: the rest of the dump must not be taken for an answer.
func (t *transport) reopen() error {
	next, err := t.dialAgain()
	old := t.conn
	if err != nil {
		return errors.Join(err, t.close())
	}
	*t = *next
	if err := old.Close(); err != nil {
		return fmt.Errorf("close nfnetlink socket: %w", err)
	}
	return nil
}

func (t *transport) dialAgain() (*transport, error) {
	fd, err := unix.IoctlRetInt(t.fd, unix.SIOCGSKNS)
	runtime.KeepAlive(t.conn)
	if err != nil {
		return nil, fmt.Errorf("network namespace of the nfnetlink socket: %w", err)
	}
	netns := os.NewFile(uintptr(fd), "netns")
	defer netns.Close()
	return dial(netns)
}

// dial opens the socket in the namespace that netns is a handle of.
func dial(netns *os.File) (*transport, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(netns.Fd())})
	if err != nil {
		return nil, fmt.Errorf("open nfnetlink socket: %w", err)
	}
	t := &transport{conn: conn}
	if err := t.configure(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return t, nil
}

func (t *transport) configure() error {
	raw, err := t.conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { t.fd = int(fd) })
	}
	if err != nil {
		return fmt.Errorf("nfnetlink socket: %w", err)
	}
	name, err := unix.Getsockname(t.fd)
	if err != nil {
		return fmt.Errorf("nfnetlink socket: %w", err)
	}
	t.port = name.(*unix.SockaddrNetlink).Pid
	// Errors then say what was wrong and where, and do not carry the whole message back.
	for _, o := range []netlink.ConnOption{netlink.ExtendedAcknowledge, netlink.CapAcknowledge} {
		if err := t.conn.SetOption(o, true); err != nil {
			return fmt.Errorf("nfnetlink socket option: %w", err)
		}
	}
	if err := t.growRcvbuf(receiveBuffer); err != nil {
		return err
	}
	return t.growSndbuf(minimumSndbuf)
}

// growRcvbuf makes room for answers of size bytes.
func (t *transport) growRcvbuf(size int) error {
	if size <= t.rcvbuf {
		return nil
	}
	if err := t.conn.SetReadBuffer(size); err != nil {
		return fmt.Errorf("nfnetlink receive buffer of %d bytes: %w", size, err)
	}
	t.rcvbuf = size
	return nil
}

// growSndbuf makes room for one send of size bytes. Without CAP_NET_ADMIN in the initial user namespace the kernel
// gives less than was asked for; a send that does not fit then fails with EMSGSIZE.
func (t *transport) growSndbuf(size int) error {
	if size <= t.sndbuf {
		return nil
	}
	if err := t.conn.SetWriteBuffer(size); err != nil {
		return fmt.Errorf("nfnetlink send buffer of %d bytes: %w", size, err)
	}
	t.sndbuf = size
	return nil
}

// send hands the messages to the kernel, which has carried them out, and put its replies in the socket's queue, when
// send returns.
func (t *transport) send(messages []byte) error {
	if err := t.growSndbuf(len(messages)); err != nil {
		return err
	}
	_, err := ignoringEINTR(unix.Write, t.fd, messages)
	runtime.KeepAlive(t.conn) // it would close the descriptor
	if err != nil {
		return fmt.Errorf("send %d bytes: %w", len(messages), err)
	}
	return nil
}

// receive reads replies that are queued already into buf, and never waits: 0 bytes and no error means that there are
// no more.
func (t *transport) receive(buf []byte) (int, error) {
	n, err := ignoringEINTR(unix.Read, t.fd, buf)
	runtime.KeepAlive(t.conn)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("receive: %w", err)
	}
	return n, nil
}

func ignoringEINTR(call func(int, []byte) (int, error), fd int, buf []byte) (int, error) {
	for {
		n, err := call(fd, buf)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// close makes what comes later an error (EBADF): the number of the descriptor is soon that of another pod's socket.
func (t *transport) close() error {
	t.fd = -1
	return t.conn.Close()
}
