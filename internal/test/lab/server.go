package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// Protocol is the transport protocol of a server or a probe.
// The names are those of package net.
type Protocol string

// The transport protocols that labs support.
const (
	TCP Protocol = "tcp"
	UDP Protocol = "udp"
)

// Serve runs an echo server on a port, on all addresses of both families, until the lab is closed.
// It returns when the server listens, so a probe right after it is answered.
func (h *Host) Serve(ctx context.Context, proto Protocol, port uint16) error {
	// A socket of IPv6 takes IPv4 as well, unless it is limited to IPv6.
	addr := netip.AddrPortFrom(netip.IPv6Unspecified(), port).String()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var bound error
		err := c.Control(func(fd uintptr) { bound = h.bindSocket(int(fd)) })
		return errors.Join(err, bound)
	}}
	// Only the listener needs the namespace. Its goroutine runs anywhere.
	return h.Do(func() error {
		switch proto {
		case TCP:
			l, err := lc.Listen(ctx, "tcp", addr)
			if err != nil {
				return fmt.Errorf("listen: %w", err)
			}
			return h.serveTCP(l)
		case UDP:
			c, err := lc.ListenPacket(ctx, "udp", addr)
			if err != nil {
				return fmt.Errorf("listen: %w", err)
			}
			return h.serveUDP(c)
		default:
			return fmt.Errorf("no server for protocol %q", proto)
		}
	})
}

// serveTCP accepts connections until the listener is closed, and echoes on each connection.
// Each connection has a goroutine; all end when the lab is closed.
func (h *Host) serveTCP(l net.Listener) error {
	conns := &openConns{conns: map[net.Conn]struct{}{}}
	if err := h.keep(closers{l, conns}); err != nil {
		return err
	}
	h.serving.Go(func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// After another error, such as too many open files, the server still works for the next connection.
			if err != nil || !conns.add(c) {
				continue
			}
			h.serving.Go(func() {
				defer conns.remove(c)
				// Wrapped, since io.Copy would otherwise use splice(2), and keep pipes open for it.
				io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) //nolint:errcheck // an error ends the connection
			})
		}
	})
	return nil
}

// serveUDP echoes datagrams until the socket is closed.
// A datagram of more than 2,048 bytes is cut off.
func (h *Host) serveUDP(c net.PacketConn) error {
	if err := h.keep(c); err != nil {
		return err
	}
	h.serving.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				c.WriteTo(buf[:n], from) //nolint:errcheck // a policy may refuse the answer; the client notices
			}
		}
	})
	return nil
}

// openConns are the connections of a server, so that the server can close them without a wait for the clients.
type openConns struct {
	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// add returns false, and closes the connection, if the server is closed already.
func (o *openConns) add(c net.Conn) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		hangUp(c)
		return false
	}
	o.conns[c] = struct{}{}
	return true
}

// remove forgets a connection that has ended, and closes it.
func (o *openConns) remove(c net.Conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.conns, c)
	hangUp(c)
}

// Close closes all connections.
func (o *openConns) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for c := range o.conns {
		hangUp(c)
	}
	return nil
}

// hangUp closes without an error: at an end, there is nothing that a caller could do about an error.
func hangUp(c io.Closer) {
	c.Close() //nolint:errcheck // nothing is lost with it, and it may be closed already
}

// closers closes several servers as one server.
// All belong to a single server, so an error of each matters.
type closers []io.Closer

// Close closes all closers, even if some return an error.
func (cs closers) Close() error {
	var errs []error
	for _, c := range cs {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
