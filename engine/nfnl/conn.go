package nfnl

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Conn is a NETLINK_NETFILTER socket in a network namespace. Keep it open while the pod lives: the close of a socket waits
// until the kernel has freed the deleted objects of the namespace, which takes milliseconds. The methods must not run at the
// same time.
type Conn struct {
	// family is NETLINK_NETFILTER, NETLINK_SOCK_DIAG or NETLINK_ROUTE. Reopen opens a socket of the same family.
	family int
	// conn owns the descriptor. This package reads and writes fd itself, because conn.Receive makes two system calls
	// and an allocation for each answer. conn has a finalizer that closes the descriptor, so each use of fd ends with a
	// runtime.KeepAlive.
	conn   *netlink.Conn
	fd     int    // of conn; -1 after close
	port   uint32 // see Port
	sndbuf int    // size of the send buffer, bytes
	rcvbuf int    // size of the receive buffer, bytes
}

// Sizes of socket buffers, bytes. They are limits and reserve nothing. The kernel answers before the send returns, so all
// answers must fit the receive buffer, else some are lost (ENOBUFS).
const (
	ReceiveBuffer = 8 << 20
	minimumSndbuf = 1 << 20
)

// Reopen replaces the socket by a new socket in the same namespace. That ends an unfinished dump, during which the kernel
// accepts no other dump on the socket. A table that the old socket owned becomes an orphan. If Reopen fails, it closes the
// Conn: the rest of the dump must not be taken for an answer.
func (c *Conn) Reopen() error {
	next, err := c.dialAgain()
	old := c.conn
	if err != nil {
		return errors.Join(err, c.Close())
	}
	*c = *next
	if err := old.Close(); err != nil {
		return fmt.Errorf("close nfnetlink socket: %w", err)
	}
	return nil
}

// dialAgain opens a new socket in the namespace of the old socket.
func (c *Conn) dialAgain() (*Conn, error) {
	netns, err := c.Namespace()
	if err != nil {
		return nil, err
	}
	defer netns.Close()
	return dialFamily(netns, c.family)
}

// Namespace opens a handle of the network namespace of the socket. The caller closes it. It works even if the path that was
// given to Open is gone.
func (c *Conn) Namespace() (*os.File, error) {
	fd, err := unix.IoctlRetInt(c.fd, unix.SIOCGSKNS)
	runtime.KeepAlive(c.conn)
	if err != nil {
		return nil, fmt.Errorf("network namespace of the nfnetlink socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "netns"), nil
}

// Port returns the number by which the kernel knows the socket (nl_pid, NFTA_TABLE_OWNER): the owner of a table is such
// a number. Reopen changes it.
func (c *Conn) Port() uint32 { return c.port }

// FD returns the descriptor of the socket, or -1 after Close.
func (c *Conn) FD() int { return c.fd }

// ErrOwnNamespace means that a path leads to the network namespace of this process, most often the host's. The agent must
// never change the rules of the host.
var ErrOwnNamespace = errors.New("this is the agent's own network namespace, not a pod's")

// Open opens a socket in the network namespace that the path is a handle of (/run/netns/NAME, /proc/PID/ns/net). It needs
// CAP_SYS_ADMIN to enter the namespace and CAP_NET_ADMIN to use the socket.
func Open(path string) (*Conn, error) {
	netns, err := OpenForeign(path)
	if err != nil {
		return nil, err
	}
	defer netns.Close()
	return Dial(netns)
}

// OpenForeign opens a handle of a network namespace that is not the namespace of this process. The caller closes it.
func OpenForeign(path string) (*os.File, error) {
	netns, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var pods, own unix.Stat_t
	if err = unix.Fstat(int(netns.Fd()), &pods); err != nil {
		err = fmt.Errorf("stat %s: %w", path, err)
	} else if err = unix.Stat("/proc/thread-self/ns/net", &own); err != nil {
		err = fmt.Errorf("stat own network namespace: %w", err)
	} else if pods.Dev == own.Dev && pods.Ino == own.Ino {
		err = fmt.Errorf("%s: %w", path, ErrOwnNamespace)
	}
	if err != nil {
		return nil, errors.Join(err, netns.Close())
	}
	return netns, nil
}

// Dial opens a socket in the namespace that netns is a handle of, even in the namespace of this process.
func Dial(netns *os.File) (*Conn, error) { return dialFamily(netns, unix.NETLINK_NETFILTER) }

// dialFamily opens a socket of a netlink family in the namespace.
func dialFamily(netns *os.File, family int) (*Conn, error) {
	conn, err := DialKernel(netns, family)
	if err != nil {
		return nil, err
	}
	c := &Conn{family: family, conn: conn}
	if err := c.configure(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// configure reads the port of the new socket and sets its options. The descriptor stays valid while c.conn is open.
func (c *Conn) configure() error {
	raw, err := c.conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { c.fd = int(fd) })
	}
	if err != nil {
		return fmt.Errorf("nfnetlink socket: %w", err)
	}
	name, err := unix.Getsockname(c.fd)
	if err != nil {
		return fmt.Errorf("nfnetlink socket: %w", err)
	}
	c.port = name.(*unix.SockaddrNetlink).Pid
	// With these options an error has a text and the offset of the wrong attribute, and not a copy of the refused message.
	for _, o := range []netlink.ConnOption{netlink.ExtendedAcknowledge, netlink.CapAcknowledge} {
		if err := c.conn.SetOption(o, true); err != nil {
			return fmt.Errorf("nfnetlink socket option: %w", err)
		}
	}
	if err := c.GrowReceive(ReceiveBuffer); err != nil {
		return err
	}
	return c.growSndbuf(minimumSndbuf)
}

// GrowReceive makes room for answers of size bytes. A caller that expects more than ReceiveBuffer calls it before Do or Ask.
func (c *Conn) GrowReceive(size int) error {
	if size <= c.rcvbuf {
		return nil
	}
	if err := c.conn.SetReadBuffer(size); err != nil {
		return fmt.Errorf("nfnetlink receive buffer of %d bytes: %w", size, err)
	}
	c.rcvbuf = size
	return nil
}

// growSndbuf makes room for a send of size bytes. Without CAP_NET_ADMIN in the initial user namespace the kernel limits the
// buffer without an error, and a send that does not fit fails with EMSGSIZE.
func (c *Conn) growSndbuf(size int) error {
	if size <= c.sndbuf {
		return nil
	}
	if err := c.conn.SetWriteBuffer(size); err != nil {
		return fmt.Errorf("nfnetlink send buffer of %d bytes: %w", size, err)
	}
	c.sndbuf = size
	return nil
}

// send hands the messages to the kernel. When send returns, the kernel has processed them and has put its answers into the
// queue of the socket.
func (c *Conn) send(messages []byte) error {
	if err := c.growSndbuf(len(messages)); err != nil {
		return err
	}
	_, err := ignoringEINTR(unix.Write, c.fd, messages)
	runtime.KeepAlive(c.conn) // its finalizer closes the descriptor
	if err != nil {
		return fmt.Errorf("send %d bytes: %w", len(messages), err)
	}
	return nil
}

// receive reads a queued datagram into buf. It never waits: 0 bytes without an error mean that the queue is empty.
func (c *Conn) receive(buf []byte) (int, error) {
	n, err := ignoringEINTR(unix.Read, c.fd, buf)
	runtime.KeepAlive(c.conn)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("receive: %w", err)
	}
	return n, nil
}

// ignoringEINTR repeats a system call that a signal interrupted. The Go runtime sends signals to its own threads to
// preempt goroutines.
func ignoringEINTR(call func(int, []byte) (int, error), fd int, buf []byte) (int, error) {
	for {
		n, err := call(fd, buf)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// Close closes the socket. Later calls fail with EBADF: the number of the descriptor may soon belong to the socket of another
// pod.
func (c *Conn) Close() error {
	c.fd = -1
	return c.conn.Close()
}
