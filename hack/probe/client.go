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
const hello = "hello"

// connect makes a connection whose reads and writes end with the context.
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
func warn(err error) {
	if err != nil && !errors.Is(err, net.ErrClosed) {
		log.Print("probe: ", err)
	}
}

// dialTCP returns nil if the server echoes over a new connection.
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
func dialUDP(ctx context.Context, interval time.Duration, address string) error {
	conn, err := connect(ctx, "udp", address)
	if err != nil {
		return err
	}
	defer func() { warn(conn.Close()) }()
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

func same(back []byte) error {
	if string(back) != hello {
		return fmt.Errorf("got %q back", back)
	}
	return nil
}
