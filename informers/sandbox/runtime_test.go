package sandbox

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A runtime that accepts and does not answer keeps no connection of the tries.
func TestSilentRuntime(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var accepted, open atomic.Int32
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			open.Add(1)
			serving.Go(func() {
				io.Copy(io.Discard, conn) //nolint:errcheck // it ends when the client does
				conn.Close()
				open.Add(-1)
			})
		}
	})
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if client, err := dialRuntime(ctx, socket); err == nil {
			t.Errorf("a client: %v", client)
		}
		cancel()
	}
	for deadline := time.Now().Add(10 * time.Second); open.Load() > 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if accepted.Load() < 3 || open.Load() > 0 {
		t.Errorf("%d connections, %d still open", accepted.Load(), open.Load())
	}
	l.Close()
	serving.Wait()
}
