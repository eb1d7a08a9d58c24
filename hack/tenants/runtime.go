package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// containerRuntime is the container runtime of the node: the sandboxes of running pods by CRI, and the question before a
// pod starts by NRI.
// cri answers about sandboxes, server is its listener, nri asks the plugins
type containerRuntime struct {
	dir    string
	cri    *cluster.Runtime
	server *grpc.Server
	nri    *cluster.NRI

	// mu guards the fields below
	mu        sync.Mutex
	sandboxes map[string]sandbox
	hanging   map[string]bool // sandboxes whose status never comes
	// created counts the sandboxes, and is the time of creation of the last
	created int64
}

// sandbox is a running pod.
type sandbox struct {
	pod cluster.Pod
	// created orders the sandboxes: a greater number is newer
	created int64
	info    map[string]string
}

// newContainerRuntime starts the servers of both sockets in the directory. The caller must stop it.
func newContainerRuntime(dir string) (*containerRuntime, error) {
	r := &containerRuntime{dir: dir, sandboxes: map[string]sandbox{}, hanging: map[string]bool{}}
	if err := os.Mkdir(filepath.Join(dir, "netns"), 0o755); err != nil {
		return nil, err
	}
	// A library of NRI logs each answer that comes after its caller has gone.
	logrus.SetOutput(io.Discard)
	r.cri = cluster.NewRuntime(r.criSocket())
	l, err := net.Listen("unix", r.criSocket())
	if err != nil {
		return nil, err
	}
	r.server = grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(r.server, &hangingRuntime{r.cri, r})
	go r.server.Serve(l) //nolint:errcheck // it ends with stop
	r.nri = cluster.NewNRI(r.nriSocket())
	return r, r.nri.Start()
}

func (r *containerRuntime) criSocket() string { return filepath.Join(r.dir, "cri.sock") }
func (r *containerRuntime) nriSocket() string { return filepath.Join(r.dir, "nri.sock") }

func (r *containerRuntime) stop() {
	r.nri.Stop()
	r.server.Stop()
}

// hangingRuntime is a cluster.Runtime that never answers about some sandboxes.
type hangingRuntime struct {
	*cluster.Runtime
	runtime *containerRuntime
}

// PodSandboxStatus implements CRI.
func (h *hangingRuntime) PodSandboxStatus(ctx context.Context, r *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	h.runtime.mu.Lock()
	hangs := h.runtime.hanging[r.GetPodSandboxId()]
	h.runtime.mu.Unlock()
	if hangs {
		// The agent's own patience ends the question.
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return h.Runtime.PodSandboxStatus(ctx, r)
}

// mount gives the network namespace of a host a path of its own, as CNI plugins do.
// The path stays valid when the host gets another name, and vanishes with unmount like the path of a real sandbox.
func (r *containerRuntime) mount(h *lab.Host, id string) (path string, err error) {
	path = filepath.Join(r.dir, "netns", id)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return "", err
	}
	if err := unix.Mount(h.NetNS(), path, "", unix.MS_BIND, ""); err != nil {
		return "", fmt.Errorf("mount the network namespace of %s: %w", h.Name, err)
	}
	return path, nil
}

// unmount removes the path of a network namespace.
func (r *containerRuntime) unmount(id string) {
	path := filepath.Join(r.dir, "netns", id)
	unix.Unmount(path, unix.MNT_DETACH) //nolint:errcheck // it may be gone
	os.Remove(path)                     //nolint:errcheck // as above
}

// newRuntimePod describes a pod of the API for the runtime. As a kubelet does, it sets the annotation about the source of the
// pod, whatever the pod's creator wrote there.
// The maps are copied, as attacks share them among pods.
func newRuntimePod(id, uid, namespace, name, netns string, labels, annotations map[string]string) cluster.Pod {
	annotations = maps.Clone(annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations["kubernetes.io/config.source"] = "api"
	annotations["kubernetes.io/config.seen"] = time.Now().Format(time.RFC3339Nano)
	labels = maps.Clone(labels)
	if labels == nil {
		labels = map[string]string{}
	}
	// These labels are how a kubelet names the pod to the runtime.
	labels["io.kubernetes.pod.name"], labels["io.kubernetes.pod.namespace"], labels["io.kubernetes.pod.uid"] = name, namespace, uid
	return cluster.Pod{SandboxID: id, UID: uid, Namespace: namespace, Name: name, Labels: labels, Annotations: annotations, NetNS: netns}
}

// run asks the agent about a pod that starts, and has the sandbox from then on. An error is a pod that does not start.
// The sandbox appears in lists of the CRI only after the plugins have answered, as in containerd.
func (r *containerRuntime) run(ctx context.Context, p cluster.Pod) error {
	if err := r.nri.Run(ctx, p); err != nil {
		return err
	}
	r.add(p)
	return nil
}

// add adds a sandbox without asking the agent, like a runtime without NRI.
func (r *containerRuntime) add(pods ...cluster.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range pods {
		r.created++
		r.sandboxes[p.SandboxID] = sandbox{p, r.created, infoOf(p)}
	}
	r.publish()
}

// hang makes the status of sandboxes hang.
// It holds for sandboxes that come later, too.
func (r *containerRuntime) hang(ids ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		r.hanging[id] = true
	}
}

// uidOf returns the UID of the pod of a sandbox.
func (r *containerRuntime) uidOf(id string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sandboxes[id].pod.UID
}

// end removes sandboxes.
// The lists lack them before the plugins hear of the end.
func (r *containerRuntime) end(ctx context.Context, pods ...cluster.Pod) {
	r.mu.Lock()
	for _, p := range pods {
		delete(r.sandboxes, p.SandboxID)
		delete(r.hanging, p.SandboxID)
	}
	r.publish()
	r.mu.Unlock()
	for _, p := range pods {
		r.nri.End(ctx, p)
	}
}

// publish makes CRI and a plugin that connects see the sandboxes. The caller holds the lock.
func (r *containerRuntime) publish() {
	var list []cluster.Sandbox
	var pods []cluster.Pod
	for _, id := range slices.Sorted(maps.Keys(r.sandboxes)) {
		s := r.sandboxes[id]
		list = append(list, cluster.Sandbox{
			ID: id, UID: s.pod.UID, Namespace: s.pod.Namespace, Name: s.pod.Name, CreatedAt: s.created, Info: s.info,
		})
		pods = append(pods, s.pod)
	}
	r.cri.Set(list...)
	r.nri.SetPods(pods...)
}

// infoOf is the verbose info of containerd, with the annotations and labels that the pod's creator chose.
// The agent takes the network namespace from the runtime's specification; all else is what an attacker controls.
func infoOf(p cluster.Pod) map[string]string {
	text, err := json.Marshal(map[string]any{
		"pid":    0,
		"config": map[string]any{"labels": p.Labels, "annotations": p.Annotations},
		"runtimeSpec": map[string]any{
			"annotations": p.Annotations,
			"linux":       map[string]any{"namespaces": []any{map[string]string{"type": "pid"}, map[string]string{"type": "network", "path": p.NetNS}}},
		},
	})
	if err != nil {
		panic(err) // strings always marshal
	}
	return map[string]string{"info": string(text)}
}
