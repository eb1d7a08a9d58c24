package main

import (
	"context"
	"io"
	"net"
	"testing"
	"time"
)

func TestDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	end(t, l)
	go serveTCP(l)
	echo, silent := packets(t), packets(t)
	go serveUDP(echo)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}

	for target, want := range map[string]string{
		"tcp://" + l.Addr().String():           "open",
		"udp://" + echo.LocalAddr().String():   "open",
		"udp://" + silent.LocalAddr().String(): "timeout",
		"tcp://" + gone.Addr().String():        "refused",
		"sctp://127.0.0.1:1":                   "error",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		err := dial(ctx, 10*time.Millisecond, target)
		cancel()
		if got := result(err); got != want {
			t.Errorf("%s: %s (%v), want %s", target, got, err, want)
		}
	}
}

func packets(t *testing.T) net.PacketConn {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	end(t, conn)
	return conn
}

func end(t *testing.T, c io.Closer) {
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}
