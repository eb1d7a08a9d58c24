package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"syscall"
	"time"
)

// result returns the result of a probe in a word. Refused means that the receiver answered: no policy drops the packet, but no
// process listens on the port.
func result(err error) string {
	switch {
	case err == nil:
		return "open"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return "refused"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return "timeout"
	default:
		return "error"
	}
}

// hello is the payload. The server must echo it.
// A server that answers with another payload is not the server of a test, so the result is an error.
const hello = "hello"

// connect makes a connection whose reads and writes end with the context.
// The caller closes the connection. At the end of the context reads fail with os.ErrDeadlineExceeded.
func connect(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		if ctx.Err() != nil { // package net returns its own error instead
			return nil, ctx.Err()
		}
		return nil, err
	}
	context.AfterFunc(ctx, func() { warn(conn.SetDeadline(time.Now())) })
	return conn, nil
}

// warn logs an error that changes no result.
// A connection that was closed on purpose is no error.
func warn(err error) {
	if err != nil && !errors.Is(err, net.ErrClosed) {
		log.Print("probe: ", err)
	}
}

// dialTCP returns nil if the server echoes over a new connection.
// The whole exchange counts: a connection that is made but whose data do not arrive is not open.
func dialTCP(ctx context.Context, address string) error {
	conn, err := connect(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { warn(conn.Close()) }()
	if _, err := io.WriteString(conn, hello); err != nil {
		return err
	}
	back := make([]byte, len(hello))
	if _, err := io.ReadFull(conn, back); err != nil {
		return err
	}
	return same(back)
}

// dialUDP sends datagrams until the server echoes a datagram, and returns nil then.
// A datagram may be lost without a policy, so a single datagram would not do. EPERM is the verdict of the pod's own
// egress rules.
func dialUDP(ctx context.Context, interval time.Duration, address string) error {
	conn, err := connect(ctx, "udp", address)
	if err != nil {
		return err
	}
	defer func() { warn(conn.Close()) }()
	// The sender ends with this function: the first answer, an error, or the end of the context.
	sending, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		for sending.Err() == nil {
			// If an egress policy of this pod refuses the packet, that counts as no answer.
			if _, err := io.WriteString(conn, hello); !errors.Is(err, syscall.EPERM) {
				warn(err)
			}
			time.Sleep(interval)
		}
	}()
	back := make([]byte, 64)
	n, err := conn.Read(back)
	if err != nil {
		return err
	}
	return same(back[:n])
}

// same returns an error unless the server echoed hello.
func same(back []byte) error {
	if string(back) != hello {
		return fmt.Errorf("got %q back", back)
	}
	return nil
}
