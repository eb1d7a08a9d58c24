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

// wellKnownEndpoints are tried in this order when no endpoint is given.
var wellKnownEndpoints = []string{"/run/containerd/containerd.sock", "/run/crio/crio.sock"}

// callTimeout is for one call to the runtime.
const callTimeout = 10 * time.Second

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
	if socket := findSocket(hostPrefix, paths); socket != "" {
		return socket, nil
	}
	return "", fmt.Errorf("%w at %s", errNoRuntime, strings.Join(paths, ", "))
}

// findSocket returns the first of the paths that is a socket, under the host prefix or as it is; empty when none is.
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

// dialRuntime makes a client of the runtime, which must answer. The connection is made again after an outage.
func dialRuntime(ctx context.Context, socket string) (internalapi.RuntimeService, error) {
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

// askRuntime is an error when the runtime does not answer. The client's builder asks as well, but forgets to close the
// connection of a runtime that does not: one for each try of an outage.
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

// quiet keeps the client from logging each failure of each call: who calls it logs the outage, once.
func quiet(ctx context.Context) context.Context { return logr.NewContext(ctx, logr.Discard()) }
