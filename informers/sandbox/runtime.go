package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	cri "k8s.io/cri-client/pkg"
)

// wellKnownEndpoints are tried in this order if no endpoint is configured.
var wellKnownEndpoints = []string{"/run/containerd/containerd.sock", "/run/crio/crio.sock"}

// callTimeout is the timeout of a call to the runtime.
const callTimeout = 10 * time.Second

// errNoRuntime is the error if no socket was found.
var errNoRuntime = errors.New("no container runtime socket")

// findEndpoint returns the socket of the runtime in this process's file system. An endpoint is a path on the host, with or
// without unix:// before it. The socket may be below the host prefix, or mounted under its own path.
func findEndpoint(endpoint, hostPrefix string) (string, error) {
	paths := wellKnownEndpoints
	if endpoint != "" {
		path := strings.TrimPrefix(endpoint, "unix://")
		if strings.Contains(path, "://") {
			return "", fmt.Errorf("container runtime endpoint %q: only unix sockets", endpoint)
		}
		paths = []string{path}
	}
	if socket := findSocket(hostPrefix, paths); socket != "" {
		return socket, nil
	}
	return "", fmt.Errorf("%w at %s", errNoRuntime, strings.Join(paths, ", "))
}

// findSocket returns the first path that is a socket, below the host prefix or as it is. It returns "" if no path is a socket.
func findSocket(hostPrefix string, paths []string) string {
	for _, p := range paths {
		for _, candidate := range []string{filepath.Join(hostPrefix, p), p} {
			if info, err := os.Stat(candidate); err == nil && info.Mode()&os.ModeSocket != 0 {
				return candidate
			}
		}
	}
	return ""
}

// dialRuntime returns a client of the runtime. It is an error if the runtime does not answer. The client reconnects by itself
// after an outage.
func dialRuntime(ctx context.Context, socket string) (internalapi.RuntimeService, error) {
	// Asked before the builder runs, see askRuntime.
	if err := askRuntime(ctx, socket); err != nil {
		return nil, fmt.Errorf("client of the container runtime at %s: %w", socket, err)
	}
	client, err := cri.NewRemoteRuntimeServiceBuilder().
		WithEndpoint("unix://" + socket).
		WithConnectionTimeout(callTimeout).
		WithTracerProvider(nil).
		Build(quiet(ctx))
	if err != nil {
		return nil, fmt.Errorf("client of the container runtime at %s: %w", socket, err)
	}
	return client, nil
}

// askRuntime returns an error if the runtime does not answer. The builder of the client checks this too, but leaks its connection
// if the runtime does not answer. In an outage, it would leak a connection with each retry.
func askRuntime(ctx context.Context, socket string) error {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing was written that could be lost
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = runtimeapi.NewRuntimeServiceClient(conn).Version(ctx, &runtimeapi.VersionRequest{})
	return err
}

// quiet returns a context with which the client does not log each failed call. The outage is logged once instead.
func quiet(ctx context.Context) context.Context { return logr.NewContext(ctx, logr.Discard()) }
