package sandbox

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
)

// host makes a folder that stands for the root directory of a host.
func host(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("", "host") // a socket's path may not be as long as t.TempDir's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) }) //nolint:errcheck // a folder of the test
	for _, path := range wellKnownEndpoints {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// serve starts a runtime at the well-known path.
func serve(t *testing.T, root, path string) {
	t.Helper()
	r := cluster.NewRuntime(filepath.Join(root, path))
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
}

// connected returns the socket to which Sandboxes connect without a configured endpoint, below the root, and the log.
func connected(t *testing.T, root string) (socket string, log *await.Log, err error) {
	t.Helper()
	log = &await.Log{}
	ctx := logr.NewContext(t.Context(), log.Logger())
	s := New(Config{HostPrefix: root})
	defer s.disconnect(ctx)
	err = s.connect(ctx)
	for _, line := range log.With("Container runtime connected") {
		_, rest, _ := strings.Cut(line, root)
		socket, _, _ = strings.Cut(rest, `"`)
	}
	return socket, log, err
}

// TestWellKnownEndpoints checks that the runtime of each distribution is found without configuration.
func TestWellKnownEndpoints(t *testing.T) {
	for _, path := range wellKnownEndpoints {
		root := host(t)
		serve(t, root, path)
		if socket, log, err := connected(t, root); err != nil || socket != path {
			t.Errorf("%s: connected to %q, %v, log %q", path, socket, err, log.With(""))
		}
	}
}

// TestSeveralEndpoints checks the choice among several sockets: the first in the order that answers as a container runtime.
func TestSeveralEndpoints(t *testing.T) {
	const k3s, microk8s, docker, containerd = "/run/k3s/containerd/containerd.sock", "/var/snap/microk8s/common/run/containerd.sock",
		"/run/cri-dockerd.sock", "/run/containerd/containerd.sock"
	t.Run("a distribution beside containerd", func(t *testing.T) {
		root := host(t)
		serve(t, root, containerd)
		serve(t, root, k3s)
		socket, log, err := connected(t, root)
		if err != nil || socket != k3s {
			t.Errorf("connected to %q, %v", socket, err)
		}
		if lines := log.With("Container runtime connected"); len(lines) != 1 || !strings.Contains(lines[0], root+containerd) {
			t.Errorf("the log does not name the other socket: %q", lines)
		}
	})
	t.Run("a socket that is left", func(t *testing.T) {
		root := host(t)
		l, err := net.Listen("unix", filepath.Join(root, microk8s))
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		l.Close()
		serve(t, root, containerd)
		if socket, _, err := connected(t, root); err != nil || socket != containerd {
			t.Errorf("connected to %q, %v", socket, err)
		}
	})
	t.Run("a server without CRI", func(t *testing.T) {
		root := host(t)
		l, err := net.Listen("unix", filepath.Join(root, docker))
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer()
		go server.Serve(l) //nolint:errcheck // it ends with Stop
		t.Cleanup(server.Stop)
		if socket, _, err := connected(t, root); err == nil || !strings.Contains(err.Error(), docker) {
			t.Errorf("connected to %q, %v; want an error with the socket", socket, err)
		}
		serve(t, root, containerd)
		if socket, _, err := connected(t, root); err != nil || socket != containerd {
			t.Errorf("connected to %q, %v", socket, err)
		}
	})
}

// TestListEndpoint checks that List logs the choice of the socket only if there is a choice.
func TestListEndpoint(t *testing.T) {
	root := host(t)
	for i, path := range []string{"/run/crio/crio.sock", "/run/k3s/containerd/containerd.sock"} {
		serve(t, root, path)
		log := &await.Log{}
		if _, err := List(logr.NewContext(t.Context(), log.Logger()), "", root); err != nil {
			t.Fatal(err)
		}
		if lines := log.With(""); len(lines) != i {
			t.Errorf("with %d sockets: %q", i+1, lines)
		}
	}
}

// TestNoEndpoint checks that the error names each place, and that the agent is not in sync without a runtime.
func TestNoEndpoint(t *testing.T) {
	root := host(t)
	_, _, err := connected(t, root)
	for _, path := range wellKnownEndpoints {
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("the error does not name %s: %v", path, err)
		}
	}
	n := newNode(t, wellKnownEndpoints[0])
	await.That(t, "the log has the reason", func() bool { return len(n.log.With("no container runtime socket")) > 0 })
	if n.sandboxes.HasSynced() {
		t.Error("in sync without a runtime")
	}
	n.start()
	await.That(t, "in sync with the runtime", n.sandboxes.HasSynced)
}
