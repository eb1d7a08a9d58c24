package cluster

import (
	"context"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Sandbox is a pod sandbox of a Runtime.
type Sandbox struct {
	ID        string // ID of the sandbox, which differs from the UID of the pod
	UID       string // UID of the pod
	Namespace string
	Name      string // name of the pod
	CreatedAt int64  // nanoseconds since 1970
	// NotReady, HostNetwork and Err are the states that a test may need; the zero value is a ready sandbox.
	NotReady    bool
	HostNetwork bool
	Handler     string            // runtime handler; empty: the default
	Info        map[string]string // the info of the verbose status
	Err         error             // the status request fails with it; nil: it succeeds
}

// InfoOf returns the verbose info, in the form of containerd, of a sandbox with a network namespace at the path.
func InfoOf(netNS string) map[string]string {
	return map[string]string{"info": fmt.Sprintf(
		`{"pid":0,"runtimeSpec":{"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":%q}]}}}`, netNS)}
}

// Runtime is a container runtime that serves the sandbox calls of CRI on a unix socket.
type Runtime struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	socket string

	// mu guards the fields below. It is not held while a status hangs.
	mu        sync.Mutex
	server    *grpc.Server
	sandboxes []Sandbox
	listErr   error  // list requests fail with it; nil: they succeed
	hanging   string // ID of the sandbox with a hanging status; empty: none
	lists     int    // list requests so far
	statuses  int    // status requests so far
}

// HangStatus makes status requests for a sandbox hang, until it is called with another ID.
func (r *Runtime) HangStatus(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hanging = id
}

// NewRuntime returns a runtime that listens after Start.
func NewRuntime(socket string) *Runtime { return &Runtime{socket: socket} }

// Start starts to listen.
func (r *Runtime) Start() error {
	l, err := net.Listen("unix", r.socket)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.server = grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(r.server, r)
	go r.server.Serve(l) //nolint:errcheck // it ends with Stop
	return nil
}

// Stop closes all connections and removes the socket. The runtime can be started again.
func (r *Runtime) Stop() {
	r.mu.Lock()
	server := r.server
	r.mu.Unlock()
	if server != nil {
		server.Stop()
	}
}

// Set replaces the sandboxes.
func (r *Runtime) Set(sandboxes ...Sandbox) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sandboxes = sandboxes
}

// FailLists makes list requests fail with the error, until it is called with nil.
func (r *Runtime) FailLists(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listErr = err
}

// Calls returns the numbers of list and status requests so far.
func (r *Runtime) Calls() (lists, statuses int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lists, r.statuses
}

// Version implements CRI.
func (*Runtime) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "test", RuntimeVersion: "1", RuntimeApiVersion: "v1"}, nil
}

// ListPodSandbox implements CRI.
func (r *Runtime) ListPodSandbox(
	_ context.Context, req *runtimeapi.ListPodSandboxRequest,
) (*runtimeapi.ListPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lists++
	if r.listErr != nil {
		return nil, r.listErr
	}
	answer := &runtimeapi.ListPodSandboxResponse{}
	for _, s := range r.sandboxes {
		// A list without a filter has the sandboxes of all states.
		if want := req.GetFilter().GetState(); want == nil || want.GetState() == s.state() {
			answer.Items = append(answer.Items, &runtimeapi.PodSandbox{
				Id: s.ID, Metadata: s.metadata(), State: s.state(), CreatedAt: max(s.CreatedAt, 1), RuntimeHandler: s.Handler,
			})
		}
	}
	return answer, nil
}

// PodSandboxStatus implements CRI.
func (r *Runtime) PodSandboxStatus(
	ctx context.Context, req *runtimeapi.PodSandboxStatusRequest,
) (*runtimeapi.PodSandboxStatusResponse, error) {
	r.mu.Lock()
	// Without the lock, so that other requests go on.
	if r.hanging == req.GetPodSandboxId() {
		r.mu.Unlock()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	defer r.mu.Unlock()
	r.statuses++
	for _, s := range r.sandboxes {
		if s.ID != req.GetPodSandboxId() {
			continue
		}
		if s.Err != nil {
			return nil, s.Err
		}
		mode := runtimeapi.NamespaceMode_POD
		if s.HostNetwork {
			mode = runtimeapi.NamespaceMode_NODE
		}
		answer := &runtimeapi.PodSandboxStatusResponse{Status: &runtimeapi.PodSandboxStatus{
			Id: s.ID, Metadata: s.metadata(), State: s.state(), CreatedAt: max(s.CreatedAt, 1),
			Linux: &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{
				Options: &runtimeapi.NamespaceOption{Network: mode},
			}},
		}}
		// Without verbose, a real runtime leaves the info out, too.
		if req.GetVerbose() {
			answer.Info = s.Info
		}
		return answer, nil
	}
	return nil, status.Errorf(codes.NotFound, "no sandbox %s", req.GetPodSandboxId())
}

// state returns the state of the sandbox in CRI.
func (s Sandbox) state() runtimeapi.PodSandboxState {
	if s.NotReady {
		return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	}
	return runtimeapi.PodSandboxState_SANDBOX_READY
}

// metadata returns the metadata of the sandbox in CRI: the pod that it belongs to.
func (s Sandbox) metadata() *runtimeapi.PodSandboxMetadata {
	return &runtimeapi.PodSandboxMetadata{Uid: s.UID, Namespace: s.Namespace, Name: s.Name}
}
