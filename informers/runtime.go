package informers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// wellKnownEndpoints are tried in this order when no endpoint is given.
var wellKnownEndpoints = []string{"/run/containerd/containerd.sock", "/run/crio/crio.sock"}

const (
	callTimeout    = 10 * time.Second
	maxMessageSize = 16 << 20 // a verbose status or a long list exceeds gRPC's default of 4 MiB
)

// errNoRuntime says that no socket was found.
var errNoRuntime = errors.New("no container runtime socket")

// findEndpoint returns the socket of the runtime. An endpoint is a path on the host, with unix:// before it or not; it
// is looked for under the host prefix and, as it may be mounted by its own name, without.
func findEndpoint(endpoint, hostPrefix string) (string, error) {
	paths := wellKnownEndpoints
	if endpoint != "" {
		path := strings.TrimPrefix(endpoint, "unix://")
		if strings.Contains(path, "://") {
			return "", fmt.Errorf("container runtime endpoint %q: only unix sockets", endpoint)
		}
		paths = []string{path}
	}
	for _, p := range paths {
		for _, candidate := range []string{filepath.Join(hostPrefix, p), p} {
			if info, err := os.Stat(candidate); err == nil && info.Mode()&os.ModeSocket != 0 {
				return candidate, nil
			}
		}
	}
	return "", fmt.Errorf("%w at %s", errNoRuntime, strings.Join(paths, ", "))
}

// dialRuntime makes a client of the runtime. The connection is made by the first call, and made again by later ones.
func dialRuntime(socket string) (*grpc.ClientConn, runtimeapi.RuntimeServiceClient, error) {
	retry := backoff.DefaultConfig
	retry.BaseDelay, retry.MaxDelay = 100*time.Millisecond, 3*time.Second
	conn, err := grpc.NewClient("passthrough:///"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"), // a path is no valid authority
		grpc.WithContextDialer(func(ctx context.Context, path string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageSize)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: 5 * time.Second}),
	)
	if err != nil {
		return nil, nil, fmt.Errorf("client of the container runtime at %s: %w", socket, err)
	}
	return conn, runtimeapi.NewRuntimeServiceClient(conn), nil
}
