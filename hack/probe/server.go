package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// serve echoes on the ports until the context ends.
// An error to listen is returned; errors of single connections are only logged.
func serve(ctx context.Context, tcp, udp string) error {
	for _, port := range split(tcp) {
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return err
		}
		go serveTCP(l)
	}
	for _, port := range split(udp) {
		conn, err := net.ListenPacket("udp", ":"+port)
		if err != nil {
			return err
		}
		go serveUDP(conn)
	}
	fmt.Println("ready")
	<-ctx.Done()
	return nil
}

// split returns the ports of a list. An empty list has none.
func split(ports string) []string {
	return strings.FieldsFunc(ports, func(c rune) bool { return c == ',' })
}

// serveTCP echoes each connection until its client closes it.
func serveTCP(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_, err := io.Copy(conn, conn)
			warn(errors.Join(err, conn.Close()))
		}()
	}
}

// serveUDP echoes each datagram to its sender.
func serveUDP(conn net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, peer, err := conn.ReadFrom(buf)
		// A read without a sender is a socket that is closed.
		if peer == nil {
			return
		}
		if err == nil {
			_, err = conn.WriteTo(buf[:n], peer)
		}
		warn(err)
	}
}
