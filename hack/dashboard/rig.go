package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing/fstest"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// nodeName is the name of the agent's node.
const nodeName = "node-1"

// The cluster of the recording.
const (
	localPods   = 12
	remotePods  = 200                    // at most; half of them come and go
	policies    = 8                      // at most; some come and go
	changeEvery = 200 * time.Millisecond // a change of remote pods or policies
	startEvery  = 3 * time.Second        // a local pod is replaced
	scanned     = 4                      // local pods that get packets that policies drop; they are not replaced
	discardPort = 9                      // no policy allows it (RFC 863)
)

// rig is the surroundings of an agent: an API server, a container runtime with NRI, and the network namespaces of the local pods.
type rig struct {
	dir     string
	files   *informers.Files
	api     *cluster.API
	runtime *cluster.Runtime
	nri     *cluster.NRI
	network *lab.Lab
	pods    []*localPod
	packets []*os.File           // sockets, each for datagrams that policies drop or would drop
	created map[string]time.Time // of the objects that exist, by name
}

// localPod is a pod of the agent's node. A new generation is another pod with the same name.
type localPod struct {
	name       string
	host       *lab.Host
	generation int
}

// newRig starts the servers, with sockets in dir.
func newRig(dir string) (r *rig, err error) {
	r = &rig{
		dir: dir, created: map[string]time.Time{}, files: informers.NewFiles(), runtime: cluster.NewRuntime(filepath.Join(dir, "cri.sock")), nri: cluster.NewNRI(filepath.Join(dir, "nri.sock")),
	}
	if r.network, err = lab.New(); err != nil {
		return nil, err
	}
	for i := range localPods {
		name := fmt.Sprintf("server-%d", i)
		host, err := r.network.Host(name, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}), 16))
		if err != nil {
			return nil, err
		}
		r.pods = append(r.pods, &localPod{name: name, host: host})
	}
	if err := r.dialDropped(); err != nil {
		return nil, err
	}
	if err := r.load(0, false); err != nil {
		return nil, err
	}
	if r.api, err = cluster.NewAPI(r.files, true); err != nil {
		return nil, err
	}
	r.setSandboxes()
	config := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: %q}}],
  contexts: [{name: c, context: {cluster: c, user: u}}], users: [{name: u, user: {}}]}`, r.api.URL())
	return r, errors.Join(os.WriteFile(filepath.Join(dir, "kubeconfig"), []byte(config), 0o600), r.runtime.Start(), r.nri.Start())
}

// flags returns the flags of the agent.
func (r *rig) flags() []string {
	return []string{
		"--kubeconfig", filepath.Join(r.dir, "kubeconfig"), "--hostname-override", nodeName,
		"--container-runtime-endpoint", filepath.Join(r.dir, "cri.sock"), "--nri-socket", filepath.Join(r.dir, "nri.sock"),
	}
}

// close ends the servers and removes the network namespaces.
func (r *rig) close() error {
	r.nri.Stop()
	r.runtime.Stop()
	r.api.Stop()
	var err error
	for _, p := range r.packets {
		err = errors.Join(err, p.Close())
	}
	return errors.Join(err, r.network.Close())
}

// dialDropped opens sockets: a stranger's to the first pods, which their policies do not allow, and the first pod's to the stranger, which only a
// policy in audit mode does not allow.
func (r *rig) dialDropped() error {
	stranger, err := r.network.Host("stranger", netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 2, 1}), 16))
	if err != nil {
		return err
	}
	dial := func(from *lab.Host, to [4]byte) {
		socket, failed := from.DialUDP(netip.AddrPortFrom(netip.AddrFrom4(to), discardPort))
		if failed == nil {
			r.packets = append(r.packets, socket)
		}
		err = errors.Join(err, failed)
	}
	dial(r.pods[0].host, [4]byte{10, 9, 2, 1})
	for i := range scanned {
		dial(stranger, [4]byte{10, 9, 0, byte(i + 1)})
	}
	return err
}

// sendDropped sends a datagram from the first pod, which is audited, and many from the stranger, to each pod twice as many as to the
// previous pod.
func (r *rig) sendDropped() {
	for i, socket := range r.packets {
		for range 1 << i {
			_, _ = socket.Write([]byte{0}) //nolint:errcheck // an ICMP error of an earlier datagram
		}
	}
}

// play changes the cluster for a while: peers and policies come and go, and pods start. In the second quarter a stranger sends packets
// that no policy allows. In the middle a policy is invalid, and later the API server is lost for half a minute.
func (r *rig) play(ctx context.Context, d time.Duration) error {
	begin, lost, nextStart := time.Now(), false, time.Now().Add(startEvery)
	for i := 1; time.Since(begin) < d; i++ {
		part := float64(time.Since(begin)) / float64(d)
		switch isLost := part > 0.75 && part < 0.8; {
		case isLost && !lost:
			r.api.Stop()
		case lost && !isLost:
			if err := r.api.Start(); err != nil {
				return err
			}
		}
		lost = part > 0.75 && part < 0.8
		// A port scan in the second quarter.
		if part > 0.25 && part < 0.5 {
			r.sendDropped()
		}
		var replaced *localPod
		if !lost && time.Now().After(nextStart) {
			nextStart = time.Now().Add(startEvery)
			replaced = r.pods[scanned+i%(localPods-scanned)]
			replaced.generation++
		}
		if err := r.load(i, part > 0.4 && part < 0.6); err != nil {
			return err
		}
		if replaced != nil {
			if err := r.restart(ctx, replaced); err != nil {
				return err
			}
		}
		select {
		case <-time.After(changeEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// restart ends a pod, and starts its new generation as a runtime with NRI does.
func (r *rig) restart(ctx context.Context, p *localPod) error {
	before := *p
	before.generation--
	r.nri.End(ctx, before.nriPod())
	if err := r.nri.Run(ctx, p.nriPod()); err != nil {
		return err
	}
	r.setSandboxes()
	return nil
}

// uid returns the UID of the pod.
func (p *localPod) uid() string { return fmt.Sprintf("%s-%d", p.name, p.generation) }

// netNS returns the path of the pod's network namespace for another process.
func (p *localPod) netNS() string {
	return strings.Replace(p.host.NetNS(), "/proc/self/", fmt.Sprintf("/proc/%d/", os.Getpid()), 1)
}

func (p *localPod) nriPod() cluster.Pod {
	return cluster.Pod{
		SandboxID: "sandbox-" + p.uid(), UID: p.uid(), Namespace: "shop", Name: p.name, Labels: map[string]string{"app": "server"},
		Annotations: map[string]string{"k8s.v1.cni.cncf.io/networks": "data"}, NetNS: p.netNS(),
	}
}

// setSandboxes makes the runtime list the sandboxes of the local pods.
func (r *rig) setSandboxes() {
	var all []cluster.Sandbox
	for _, p := range r.pods {
		all = append(all, cluster.Sandbox{
			ID: "sandbox-" + p.uid(), UID: p.uid(), Namespace: "shop", Name: p.name, CreatedAt: time.Now().UnixNano(), Info: cluster.InfoOf(p.netNS()),
		})
	}
	r.runtime.Set(all...)
}

// load replaces the objects of the API server by those of a step.
func (r *rig) load(step int, hasInvalid bool) error {
	m, err := informers.ReadFS(fstest.MapFS{"world.yaml": {Data: []byte(r.world(step, hasInvalid))}})
	if err != nil {
		return err
	}
	return r.files.Load(m)
}

// creation returns the time at which an object came into the world.
func (r *rig) creation(name string) string {
	if r.created[name].IsZero() {
		r.created[name] = time.Now()
	}
	return r.created[name].UTC().Format(time.RFC3339)
}

// world returns the objects of a step: the first half of the remote pods stays, and of the others each comes and goes by its own
// period.
func (r *rig) world(step int, hasInvalid bool) string {
	var b strings.Builder
	// The server sends no bookmarks, so each kind needs an event about every minute: the agent takes a silent watch for lost.
	minute := step / int(time.Minute/changeEvery)
	fmt.Fprintf(&b, "{apiVersion: v1, kind: Namespace, metadata: {name: shop, uid: shop, labels: {minute: m%d}}}\n---\n"+
		"{apiVersion: k8s.cni.cncf.io/v1, kind: NetworkAttachmentDefinition, metadata: {namespace: shop, name: data, labels: {minute: m%d}},\n"+
		"  spec: {config: '{\"type\": \"macvlan\"}'}}\n", minute, minute)
	pod := func(name, uid, app, group, node, address string) {
		fmt.Fprintf(&b, "---\n{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: %s, uid: %s, creationTimestamp: %q, labels: {app: %s, group: %s}, annotations: {\n"+
			"  k8s.v1.cni.cncf.io/networks: data,\n"+
			"  k8s.v1.cni.cncf.io/network-status: '[{\"name\": \"shop/data\", \"interface\": \"net1\", \"ips\": [\"%s\"]}]'}},\n"+
			"  spec: {nodeName: %s}, status: {phase: Running}}\n", name, uid, r.creation(uid), app, group, address, node)
	}
	for i, p := range r.pods {
		pod(p.name, p.uid(), "server", "none", nodeName, fmt.Sprintf("10.9.0.%d", i+1))
	}
	for i := range remotePods {
		if name := fmt.Sprintf("client-%d", i); i >= remotePods/2 && step/(10+i)%2 != 0 {
			delete(r.created, name)
		} else {
			pod(name, name, "client", fmt.Sprintf("g%d", i%policies), "node-2", fmt.Sprintf("10.9.1.%d", i+1))
		}
	}
	for i := range policies {
		if name := fmt.Sprintf("p%d", i); i >= policies/2 && step/(40*i)%2 != 0 {
			delete(r.created, name)
		} else {
			fmt.Fprintf(&b, "---\n{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: shop, name: %s, uid: %s, creationTimestamp: %q,\n"+
				"  annotations: {k8s.v1.cni.cncf.io/policy-for: data}}, spec: {podSelector: {matchLabels: {app: server}}, ingress: [\n"+
				"    {from: [{podSelector: {matchLabels: {group: g%d}}}], ports: [{port: %d}]}]}}\n", name, name, r.creation(name), i, 8000+i)
		}
	}
	b.WriteString("---\n{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: shop, name: audited, uid: audited,\n" +
		"  annotations: {k8s.v1.cni.cncf.io/policy-for: data, multi-networkpolicy/mode: audit}}, spec: {podSelector: {}, policyTypes: [Egress]}}\n")
	if hasInvalid {
		b.WriteString("---\n{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: shop, name: invalid, uid: invalid,\n" +
			"  annotations: {k8s.v1.cni.cncf.io/policy-for: data}}, spec: {podSelector: {}, ingress: [{ports: [{port: 70000}]}]}}\n")
	}
	return b.String()
}
