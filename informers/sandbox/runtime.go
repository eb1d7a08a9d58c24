package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	cri "k8s.io/cri-client/pkg"
)

// wellKnownEndpoints are the sockets of container runtimes, tried in this order if no endpoint is configured. Sockets that only a
// Kubernetes distribution makes come first: beside k3s, for example, a containerd for other containers may run.
var wellKnownEndpoints = []string{
	"/run/k3s/containerd/containerd.sock",           // k3s, RKE2
	"/run/k0s/containerd.sock",                      // k0s
	"/var/snap/microk8s/common/run/containerd.sock", // MicroK8s
	"/run/cri-dockerd.sock",                         // Docker; beside it, Docker's own containerd runs
	"/run/containerd/containerd.sock",               // containerd
	"/run/crio/crio.sock",                           // CRI-O
}

// callTimeout is the timeout of a call to the runtime.
const callTimeout = 10 * time.Second

// errNoRuntime is the error if no socket was found.
var errNoRuntime = errors.New("no container runtime socket")

// findEndpoints returns the sockets of runtimes in this process's file system, the best first. An endpoint is a path on the host,
// with or without unix:// before it; an empty endpoint stands for the well-known sockets. A socket may be below the host prefix, or
// mounted under its own path.
func findEndpoints(endpoint, hostPrefix string) ([]string, error) {
	paths := wellKnownEndpoints
	if endpoint != "" {
		path := strings.TrimPrefix(endpoint, "unix://")
		if strings.Contains(path, "://") {
			return nil, fmt.Errorf("container runtime endpoint %q: only unix sockets", endpoint)
		}
		paths = []string{path}
	}
	var sockets []string
	for _, p := range paths {
		if socket := findSocket(hostPrefix, []string{p}); socket != "" {
			sockets = append(sockets, socket)
		}
	}
	if len(sockets) == 0 {
		return nil, fmt.Errorf("%w at %s: in a container, the folder of the socket must be mounted (manifests/components)",
			errNoRuntime, strings.Join(paths, ", "))
	}
	return sockets, nil
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

// dialFirst returns a client of the first runtime that answers, and logs the choice. A socket may be left by a runtime that has
// ended, or belong to a containerd without CRI, as Docker runs it. The error has the reason for each socket.
func dialFirst(ctx context.Context, sockets []string) (internalapi.RuntimeService, error) {
	var errs []error
	for i, socket := range sockets {
		client, err := dialRuntime(ctx, socket)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		others := slices.Delete(slices.Clone(sockets), i, i+1)
		logr.FromContextOrDiscard(ctx).Info("Container runtime connected", "socket", socket, "otherSockets", strings.Join(others, ","))
		return client, nil
	}
	return nil, errors.Join(errs...)
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
