package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// FlowKind is the protocol of a Flow, and the kind of its sockets.
type FlowKind string

// The kinds of flows. The server's socket of a FlowUDPServer is not connected, like a DNS server's. Both sockets of a FlowUDP are
// connected.
// The difference matters to an agent that reads the pod's sockets: an unconnected socket does not tell its peer.
const (
	FlowTCP       FlowKind = "tcp"
	FlowUDP       FlowKind = "udp"
	FlowUDPServer FlowKind = "udp server"
	FlowSCTP      FlowKind = "sctp"
)

// FlowSpec describes the connection that OpenFlow opens.
type FlowSpec struct {
	Kind     FlowKind
	From, To *Host      // From opens the connection
	Source   netip.Addr // in From; if invalid, the kernel chooses it
	// Target is an address of To and the port on which To listens
	Target netip.AddrPort // in To

	// The sockets are bound to these devices, such as a VRF; empty: to none.
	SourceDevice, TargetDevice string
}

// Flow is an open connection between two hosts, with a socket at each end.
// A test keeps it open while policies change, and then writes on it.
type Flow struct {
	Opener, Other FlowEnd
	Source        netip.AddrPort // of the opener
}

// FlowEnd is the socket at an end of a Flow. With UDP, a Read or a Write transfers a single message.
// Its operations end with os.ErrDeadlineExceeded at the deadline.
type FlowEnd interface {
	io.ReadWriteCloser
	SetDeadline(t time.Time) error
	SyscallConn() (syscall.RawConn, error)
}

// Close closes both ends.
func (f *Flow) Close() error { return errors.Join(f.Opener.Close(), f.Other.Close()) }

const (
	flowHello    = "hello"         // the first message of each end
	flowPatience = 5 * time.Second // for the whole handshake
)

// OpenFlow opens a connection, and sends a message in each direction. The server's socket no longer listens when it returns.
// Both directions have carried a packet then, so connection tracking sees an established connection.
func OpenFlow(ctx context.Context, s FlowSpec) (*Flow, error) {
	var accept func(deadline time.Time) (FlowEnd, error)
	err := s.To.Do(func() (err error) {
		// The server listens before the client dials: without a listener, the kernel answers a SYN with a reset.
		accept, err = s.listen(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", s.Target, err)
	}
	deadline := time.Now().Add(flowPatience)
	f := &Flow{}
	err = s.From.Do(func() (err error) {
		f.Opener, err = s.dial(ctx, deadline)
		return err
	})
	if err == nil {
		if err = f.Opener.SetDeadline(deadline); err == nil {
			// The client has sent its message; the server's end exists only after that message with UDP.
			_, err = f.Opener.Write([]byte(flowHello))
		}
	}
	other, acceptErr := accept(deadline)
	if other != nil {
		f.Other = other
	}
	if err = errors.Join(err, acceptErr); err == nil {
		err = f.answer(deadline)
	}
	if err != nil {
		for _, end := range []FlowEnd{f.Opener, f.Other} {
			if end != nil {
				err = errors.Join(err, end.Close())
			}
		}
		return nil, fmt.Errorf("open a connection from %s to %s: %w", s.From.Name, s.Target, err)
	}
	return f, nil
}

// answer sends a message from the server back to the opener.
// The deadlines of both ends are removed at the end, for the caller's own.
func (f *Flow) answer(deadline time.Time) error {
	if err := f.Other.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := f.Other.Write([]byte(flowHello)); err != nil {
		return err
	}
	if _, err := io.ReadFull(f.Opener, make([]byte, len(flowHello))); err != nil {
		return err
	}
	source, err := localPort(f.Opener)
	f.Source = source
	return errors.Join(err, f.Opener.SetDeadline(time.Time{}), f.Other.SetDeadline(time.Time{}))
}

// listen returns a function that waits for the connection and its first message, and stops listening.
// SO_REUSEPORT allows several flows to the same port, also while earlier flows are open.
func (s FlowSpec) listen(ctx context.Context) (accept func(deadline time.Time) (FlowEnd, error), err error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error {
			return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1), bindToDevice(fd, s.TargetDevice))
		})
	}}
	switch s.Kind {
	case FlowTCP:
		l, err := config.Listen(ctx, "tcp", s.Target.String())
		if err != nil {
			return nil, err
		}
		return func(deadline time.Time) (FlowEnd, error) {
			defer hangUp(l)
			if err := l.(*net.TCPListener).SetDeadline(deadline); err != nil {
				return nil, err
			}
			c, err := l.Accept()
			if err != nil {
				return nil, err
			}
			return greeted(c.(*net.TCPConn), deadline)
		}, nil
	case FlowSCTP:
		return s.listenSCTP()
	default:
		c, err := config.ListenPacket(ctx, "udp", s.Target.String())
		if err != nil {
			return nil, err
		}
		return func(deadline time.Time) (FlowEnd, error) { return s.acceptUDP(c.(*net.UDPConn), deadline) }, nil
	}
}

// acceptUDP waits for the first message, which tells the client's address. For a [FlowUDP] it connects the server's
// socket to the client, so that both sockets are connected.
func (s FlowSpec) acceptUDP(c *net.UDPConn, deadline time.Time) (FlowEnd, error) {
	err := c.SetDeadline(deadline)
	var peer netip.AddrPort
	if err == nil {
		_, peer, err = c.ReadFromUDPAddrPort(make([]byte, len(flowHello)))
	}
	if err == nil && s.Kind == FlowUDP {
		var raw syscall.RawConn
		if raw, err = c.SyscallConn(); err == nil {
			err = control(raw, func(fd int) error { return unix.Connect(fd, sockaddr(peer)) })
		}
	}
	switch {
	case err != nil:
		return nil, errors.Join(err, c.Close())
	case s.Kind == FlowUDP:
		return c, nil
	default:
		return peerless{c, peer}, nil
	}
}

// peerless is the unconnected UDP socket of a server. It sends to a single client.
// Write works before a Read, since the client's address is known from its first message.
type peerless struct {
	*net.UDPConn
	client netip.AddrPort
}

// Read receives from any address.
func (p peerless) Read(b []byte) (int, error) {
	n, _, err := p.ReadFromUDPAddrPort(b)
	return n, err
}

// Write sends to the client.
func (p peerless) Write(b []byte) (int, error) { return p.WriteToUDPAddrPort(b, p.client) }

// greeted waits for the first message of an accepted connection.
// It closes the connection if the message does not come.
func greeted(c FlowEnd, deadline time.Time) (FlowEnd, error) {
	err := c.SetDeadline(deadline)
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, len(flowHello)))
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// dial opens the client's end.
// An end whose Source is given is bound to it, with a port that the kernel chooses.
func (s FlowSpec) dial(ctx context.Context, deadline time.Time) (FlowEnd, error) {
	d := net.Dialer{Deadline: deadline, Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error { return bindToDevice(fd, s.SourceDevice) })
	}}
	switch s.Kind {
	case FlowTCP:
		if s.Source.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(s.Source, 0))
		}
		return dialed[*net.TCPConn](d.DialContext(ctx, "tcp", s.Target.String()))
	case FlowSCTP:
		return s.dialSCTP()
	default:
		if s.Source.IsValid() {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.Source, 0))
		}
		return dialed[*net.UDPConn](d.DialContext(ctx, "udp", s.Target.String()))
	}
}

// dialed turns a nil connection into a nil interface: a nil *net.TCPConn in a FlowEnd would not be nil.
func dialed[C FlowEnd](c net.Conn, err error) (FlowEnd, error) {
	if err != nil {
		return nil, err
	}
	return c.(C), nil
}

// listenSCTP is listen for SCTP, which the net package does not know.
// It has the same contract. Its time limit is flowPatience, not the deadline.
func (s FlowSpec) listenSCTP() (accept func(deadline time.Time) (FlowEnd, error), err error) {
	fd, err := socketSCTP(s.Target, s.TargetDevice)
	if err != nil {
		return nil, err
	}
	// Other connections to the port may be open.
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(fd, sockaddr(s.Target)), unix.Listen(fd, 1))
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	wait := unix.NsecToTimeval(int64(flowPatience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	// A timeout of the socket, since Accept4 blocks the thread and knows no deadline.
	return func(deadline time.Time) (FlowEnd, error) {
		accepted, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			return nil, err
		}
		c, err := fileSCTP(accepted)
		if err != nil {
			return nil, err
		}
		return greeted(c, deadline)
	}, nil
}

// dialSCTP is dial for SCTP. It blocks until the handshake ends.
func (s FlowSpec) dialSCTP() (FlowEnd, error) {
	fd, err := socketSCTP(s.Target, s.SourceDevice)
	if err != nil {
		return nil, err
	}
	if s.Source.IsValid() { // otherwise the kernel offers all addresses of the host
		err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(s.Source, 0)))
	}
	if err == nil {
		err = unix.Connect(fd, sockaddr(s.Target))
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return fileSCTP(fd)
}

// socketSCTP opens an SCTP socket with a single stream of bytes (SOCK_STREAM), bound to a device if a device is given.
// The caller closes the descriptor.
func socketSCTP(at netip.AddrPort, device string) (int, error) {
	family := unix.AF_INET
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return -1, err
	}
	if err := bindToDevice(fd, device); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// bindToDevice binds a socket to a device; an empty name binds it to none.
func bindToDevice(fd int, name string) error {
	if name == "" {
		return nil
	}
	return unix.BindToDevice(fd, name)
}

// fileSCTP turns the descriptor into a file that the runtime polls, so that deadlines work.
// It closes the descriptor if it fails.
func fileSCTP(fd int) (FlowEnd, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "sctp"), nil
}

// HasSCTP reports whether the kernel has sockets of SCTP.
// The module may be missing, so tests of SCTP are skipped then.
func HasSCTP(t TB) bool {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	if err != nil {
		t.Logf("SKIPPED in part: no SCTP on this kernel: %v", err)
		return false
	}
	return unix.Close(fd) == nil
}

// localPort returns the local address and port of a socket.
// It works for sockets of any protocol over IPv4 and IPv6.
func localPort(end FlowEnd) (at netip.AddrPort, err error) {
	raw, err := end.SyscallConn()
	if err != nil {
		return at, err
	}
	err = control(raw, func(fd int) error {
		name, err := unix.Getsockname(fd)
		switch name := name.(type) {
		case *unix.SockaddrInet4:
			at = netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port))
		case *unix.SockaddrInet6:
			at = netip.AddrPortFrom(netip.AddrFrom16(name.Addr).Unmap(), uint16(name.Port))
		}
		return err
	})
	return at, err
}

// control runs a function with the descriptor of a socket.
// The descriptor is valid during the call only.
func control(c syscall.RawConn, f func(fd int) error) error {
	var inner error
	err := c.Control(func(fd uintptr) { inner = f(int(fd)) })
	return errors.Join(err, inner)
}
