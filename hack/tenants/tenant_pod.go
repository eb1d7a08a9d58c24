package main

import (
	"context"
	"fmt"
	"maps"
	"net/netip"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// podOptions describe a pod of the attacker.
// The zero value is a pod of the namespace evil on the network net, which starts with NRI and gets its status.
type podOptions struct {
	namespace   string // empty: evil
	labels      map[string]string
	annotations map[string]string // without a request for networks, startPod adds a request for net
	ports       []object          // of its container
	forged      object            // patch that its creator makes between the creation and the start
	quiet       bool              // without NRI: the runtime has the pod and does not ask the agent
	unreported  bool              // Multus and the kubelet have reported nothing yet
	held        bool              // everything is there, and the runtime has not started the pod yet
	alone       bool              // no interface; the network namespace goes with endPods
}

// body is the pod as its creator writes it.
func (o *podOptions) body(name string) object {
	body := podObject(name, nodeName, o.labels, o.annotations)
	if o.ports != nil {
		body["spec"].(object)["containers"].([]object)[0]["ports"] = o.ports
	}
	return body
}

// runningPod is a pod of the attacker on the node.
// The host is the pod's network namespace, and root in it is the tenant.
type runningPod struct {
	*lab.Host
	pod   cluster.Pod
	addr  netip.Addr
	alone *lab.Lab // nil: the host is in the network of all pods
}

// startPod creates a pod on the node, with an interface on the network net, and starts it. Multus and the kubelet report
// its status.
// An error after the start returns the pod too, so that it can be ended.
func (t *tenant) startPod(ctx context.Context, name string, o podOptions) (*runningPod, error) {
	if o.namespace == "" {
		o.namespace = evilNamespace
	}
	o.annotations = maps.Clone(o.annotations)
	if o.annotations == nil {
		o.annotations = map[string]string{}
	}
	if _, ok := o.annotations[requestAnnotation]; !ok {
		o.annotations[requestAnnotation] = "net"
	}
	uid, err := t.api.create(ctx, pods, o.namespace, o.body(name))
	if err == nil && o.forged != nil {
		err = t.api.merge(ctx, pods, o.namespace, name, o.forged)
	}
	if err != nil {
		return nil, err
	}
	return t.runPod(ctx, name, uid, o)
}

// runPod starts a pod that exists in the API.
// uid is the identifier of its sandbox as well. The pod's address is new in this attack.
func (t *tenant) runPod(ctx context.Context, name, uid string, o podOptions) (*runningPod, error) {
	t.mu.Lock()
	t.hosts++
	addr := netip.AddrFrom4([4]byte{10, 66, byte(t.hosts >> 8), byte(t.hosts)})
	t.mu.Unlock()
	p := &runningPod{addr: addr}
	var err error
	if o.alone {
		if p.alone, err = lab.New(); err != nil {
			return nil, err
		}
		p.Host, err = p.alone.Bare(name)
	} else {
		p.Host, err = t.network.Host(o.namespace+"-"+name, netip.PrefixFrom(addr, 16))
	}
	if err != nil {
		return nil, err
	}
	// The runtime shows the agent this path, as a real runtime shows that of a CNI namespace.
	path, err := t.runtime.mount(p.Host, uid)
	if err != nil {
		return nil, err
	}
	p.pod = newRuntimePod(uid, uid, o.namespace, name, path, o.labels, o.annotations)
	t.mu.Lock()
	// From here on undo ends the pod, even if its start fails.
	t.running = append(t.running, p)
	t.mu.Unlock()
	if o.held {
		return p, nil
	}
	if o.quiet {
		t.runtime.add(p.pod)
	} else if err := t.runtime.run(ctx, p.pod); err != nil {
		return p, fmt.Errorf("start %s: %w", name, err)
	}
	if o.unreported {
		return p, nil
	}
	return p, t.admin.report(ctx, o.namespace, name, networkStatus(o.namespace+"/net", addr))
}

// startPods starts pods pod-0, pod-1 and so on.
// They start several at a time, in any order. With an error, the list may have nil entries.
func (t *tenant) startPods(ctx context.Context, n int, o podOptions) ([]*runningPod, error) {
	list := make([]*runningPod, n)
	return list, t.many(n, func(i int) (err error) {
		list[i], err = t.startPod(ctx, fmt.Sprintf("pod-%d", i), o)
		return err
	})
}

// createPods creates pods peer-0, peer-1 and so on of another node. The tenant itself writes their status.
// They need no sandbox and no network namespace: only their labels and their claimed addresses count.
func (t *tenant) createPods(ctx context.Context, n int, labels map[string]string, status func(i int) string) error {
	return t.many(n, func(i int) error {
		return t.create(ctx, pods, evilNamespace, podObject(fmt.Sprintf("peer-%d", i), "node-2", labels,
			map[string]string{statusAnnotation: status(i)}))
	})
}

// flood sends datagrams from a pod until the end of the attack.
func (t *tenant) flood(from *runningPod, to netip.Addr) error {
	b, err := startBeam(from.Host, to)
	if err == nil {
		t.atEnd(b.end)
	}
	return err
}

// isolates returns an error if a packet from another pod arrives in the pod, which no policy allows.
// It sends for startWatch from the other pod. It says nothing about packets before the call.
func (p *runningPod) isolates(ctx context.Context, from *runningPod) error {
	r, err := newReceiver(p.Host)
	if err != nil {
		return err
	}
	defer r.close()
	b, err := startBeam(from.Host, p.addr)
	if err != nil {
		return err
	}
	pause(ctx, startWatch)
	b.end()
	if n := r.got(from.addr).count; n > 0 {
		return fmt.Errorf("%d forbidden packets", n)
	}
	return nil
}

// nft runs nft as root of the pod, with a script.
func (p *runningPod) nft(script string) error {
	_, err := runNFT(p.Host, script)
	return err
}

// endPods ends the sandboxes of pods.
// The pods stay in the API.
func (t *tenant) endPods(ctx context.Context, list ...*runningPod) {
	var sandboxes []cluster.Pod
	for _, p := range list {
		sandboxes = append(sandboxes, p.pod)
	}
	t.runtime.end(ctx, sandboxes...)
	for _, p := range list {
		t.removeNetNS(p)
	}
}

// removeNetNS removes the network namespace of a pod, as far as it is the pod's alone.
// Hosts in the network of all pods go with the network, at the end of the attack. It may be called twice.
func (t *tenant) removeNetNS(p *runningPod) {
	t.runtime.unmount(p.pod.SandboxID)
	t.mu.Lock()
	own := p.alone
	p.alone = nil
	t.mu.Unlock()
	if own == nil {
		return
	}
	if err := own.Close(); err != nil {
		t.fault("%v", err)
	}
}
