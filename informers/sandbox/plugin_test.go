package sandbox

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/net/multiplex"
	"github.com/containerd/ttrpc"
)

// mute is a runtime that takes a plugin's registration, and then asks for nothing.
type mute struct{ registered chan struct{} }

// RegisterPlugin is NRI's.
func (m mute) RegisterPlugin(context.Context, *api.RegisterPluginRequest) (*api.Empty, error) {
	m.registered <- struct{}{}
	return &api.Empty{}, nil
}

// UpdateContainers is NRI's.
func (mute) UpdateContainers(context.Context, *api.UpdateContainersRequest) (*api.UpdateContainersResponse, error) {
	return &api.UpdateContainersResponse{}, nil
}

// serve takes plugins until the listener is closed.
func (m mute) serve(t *testing.T, l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		mux := multiplex.Multiplex(conn)
		t.Cleanup(func() { mux.Close() })
		inner, err := mux.Listen(multiplex.RuntimeServiceConn)
		if err != nil {
			t.Error(err)
			return
		}
		server, err := ttrpc.NewServer()
		if err != nil {
			t.Error(err)
			return
		}
		api.RegisterRuntimeService(server, m)
		t.Cleanup(func() { server.Close() })
		go server.Serve(context.Background(), inner) //nolint:errcheck // it ends with the test
	}
}

// A runtime that takes a registration and then says nothing is given up, and nothing of the try is left behind.
func TestMuteRuntime(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := mute{registered: make(chan struct{}, 100)}
	go m.serve(t, l)
	n := NewNRI(t.Context(), NRIConfig{Socket: socket})
	n.patience = time.Second
	for deadline := time.Now().Add(time.Minute); len(m.registered) < 2; { // on a busy machine it may be given up before it registers
		if err := n.connect(t.Context()); !errors.Is(err, errRejected) {
			t.Fatalf("error %v", err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("it registered %d times", len(m.registered))
		}
	}
	plugins := func() int {
		stacks := make([]byte, 1<<20)
		return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "stub.(*stub)")
	}
	for deadline := time.Now().Add(10 * time.Second); plugins() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines of plugins are left", plugins())
		}
	}
}
