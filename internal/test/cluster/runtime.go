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
	ID          string
	UID         string
	Namespace   string
	Name        string
	CreatedAt   int64
	NotReady    bool
	HostNetwork bool
	Handler     string            // of the runtime; empty: the default
	Info        map[string]string // of the verbose status
	Err         error             // of the status
}

// InfoOf is the verbose info of containerd for a sandbox with a network namespace at the path.
func InfoOf(netNS string) map[string]string {
	return map[string]string{"info": fmt.Sprintf(
		`{"pid":0,"runtimeSpec":{"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":%q}]}}}`, netNS)}
}

// Runtime is a container runtime that serves the sandboxes' part of CRI on a unix socket.
type Runtime struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	socket string

	mu        sync.Mutex
	server    *grpc.Server
	sandboxes []Sandbox
	listErr   error
	hanging   string // the sandbox whose status never comes
	lists     int
	statuses  int
}

// HangStatus makes the status of a sandbox never come, until it is given another ID.
func (r *Runtime) HangStatus(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hanging = id
}

// NewRuntime makes a runtime that listens once it is started.
func NewRuntime(socket string) *Runtime { return &Runtime{socket: socket} }

// Start listens.
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

// Stop hangs up and removes the socket; the runtime can be started again.
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

// FailLists makes lists fail, until it is given nil.
func (r *Runtime) FailLists(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listErr = err
}

// Calls are how many lists and statuses were asked for.
func (r *Runtime) Calls() (lists, statuses int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lists, r.statuses
}

// Version is CRI.
func (*Runtime) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "test", RuntimeVersion: "1", RuntimeApiVersion: "v1"}, nil
}

// ListPodSandbox is CRI.
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
		if want := req.GetFilter().GetState(); want == nil || want.GetState() == s.state() {
			answer.Items = append(answer.Items, &runtimeapi.PodSandbox{
				Id: s.ID, Metadata: s.metadata(), State: s.state(), CreatedAt: max(s.CreatedAt, 1), RuntimeHandler: s.Handler,
			})
		}
	}
	return answer, nil
}

// PodSandboxStatus is CRI.
func (r *Runtime) PodSandboxStatus(
	ctx context.Context, req *runtimeapi.PodSandboxStatusRequest,
) (*runtimeapi.PodSandboxStatusResponse, error) {
	r.mu.Lock()
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
		if req.GetVerbose() {
			answer.Info = s.Info
		}
		return answer, nil
	}
	return nil, status.Errorf(codes.NotFound, "no sandbox %s", req.GetPodSandboxId())
}

func (s Sandbox) state() runtimeapi.PodSandboxState {
	if s.NotReady {
		return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	}
	return runtimeapi.PodSandboxState_SANDBOX_READY
}

func (s Sandbox) metadata() *runtimeapi.PodSandboxMetadata {
	return &runtimeapi.PodSandboxMetadata{Uid: s.UID, Namespace: s.Namespace, Name: s.Name}
}
