package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// pod is the state of a test pod when it was read. A new sandbox has other addresses.
// Steps that restart pods must read them again.
type pod struct {
	name      string
	node      string
	uid       string
	addresses map[string][]netip.Addr // by interface
	// The pause process holds the network namespace of the pod.
	sandbox int // process ID of the pause process, in the process namespace of the cluster
}

// object is the part of a Pod that the test reads.
// Its field names are those of the API; encoding/json ignores their case.
type object struct {
	Metadata struct {
		Name, UID   string
		Annotations map[string]string
	}
	Spec   struct{ NodeName string }
	Status struct {
		ContainerStatuses []struct {
			ContainerID string
			Ready       bool
		}
	}
}

// network is an entry of the annotation network-status, which Multus writes.
type network struct {
	Interface string
	IPs       []netip.Addr
}

// names returns the names of pods, sorted, so that reports compare.
func names(pods map[string]*pod) []string { return slices.Sorted(maps.Keys(pods)) }

// testPods reads the pods that the flags of kubectl select, by default the pods of the default namespace. It fails if a pod is
// not ready.
func (c *cluster) testPods(ctx context.Context, flags ...string) (map[string]*pod, error) {
	out, err := c.kubectl(ctx, append([]string{"get", "pods", "-o", "json"}, flags...)...)
	if err != nil {
		return nil, err
	}
	var list struct{ Items []object }
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, err
	}
	pods := map[string]*pod{}
	for _, o := range list.Items {
		p, err := c.pod(o)
		if err != nil {
			return nil, fmt.Errorf("pod %s: %w", o.Metadata.Name, err)
		}
		pods[p.name] = p
	}
	return pods, nil
}

// pod reads the state of one pod.
// It needs the annotation of Multus: a pod without it is an error.
func (c *cluster) pod(o object) (*pod, error) {
	statuses := o.Status.ContainerStatuses
	if len(statuses) == 0 || !statuses[0].Ready {
		return nil, fmt.Errorf("is not ready")
	}
	p := &pod{name: o.Metadata.Name, node: o.Spec.NodeName, uid: o.Metadata.UID, addresses: map[string][]netip.Addr{}}
	var networks []network
	if err := json.Unmarshal([]byte(o.Metadata.Annotations["k8s.v1.cni.cncf.io/network-status"]), &networks); err != nil {
		return nil, fmt.Errorf("network status: %w", err)
	}
	for _, n := range networks {
		p.addresses[n.Interface] = n.IPs
	}
	var err error
	p.sandbox, err = c.sandbox(p.node, strings.TrimPrefix(statuses[0].ContainerID, "containerd://"))
	return p, err
}

// sandbox returns the pid of the first process in the sandbox of a container. It reads the files of containerd, which is cheaper
// than starting a client.
func (c *cluster) sandbox(node, container string) (int, error) {
	tasks := filepath.Join(c.dir, "run", node+".d", "state/io.containerd.runtime.v2.task/k8s.io")
	// The container's OCI configuration names its sandbox in an annotation of the CRI plugin.
	spec, err := os.ReadFile(filepath.Join(tasks, container, "config.json"))
	if err != nil {
		return 0, err
	}
	var config struct{ Annotations map[string]string }
	if err := json.Unmarshal(spec, &config); err != nil {
		return 0, fmt.Errorf("container %s: %w", container, err)
	}
	// The sandbox is a task too; its first process is the pause process.
	text, err := os.ReadFile(filepath.Join(tasks, config.Annotations["io.kubernetes.cri.sandbox-id"], "init.pid"))
	if err != nil {
		return 0, err
	}
	var pid int
	_, err = fmt.Sscan(string(text), &pid)
	return pid, err
}

// inside returns a command that runs in the network namespace of the pod, but with the files of this machine: images
// need no tools.
// Tools of this machine, such as nft and the probe, work in it.
func (c *cluster) inside(p *pod, args ...string) []string {
	return c.in("cp", append([]string{"nsenter", "-t", fmt.Sprint(p.sandbox), "--net"}, args...)...)
}
