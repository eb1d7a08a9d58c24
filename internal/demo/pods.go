package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"sync/atomic"

	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// networkInterface is the pods' interface on the secondary network.
const networkInterface = "net1"

// pod is a pod of the manifests and the host (a network namespace) that stands for it.
// host and addrs are set by start
type pod struct {
	id    cache.PodID
	host  *lab.Host
	addrs []netip.Addr
}

// name returns the name of the pod without its namespace.
func (p *pod) name() string { return p.id.Name }

// start replaces the kubelet and Multus: it gives every pod a network namespace with the addresses of its network status, and
// starts its servers.
func (d *demo) start(ctx context.Context, network *lab.Lab) error {
	for _, object := range d.files.Pods() {
		p := &pod{id: cache.PodID{Key: cache.Key{Namespace: object.Namespace, Name: object.Name}, UID: object.UID}}
		var prefixes []netip.Prefix
		for _, addr := range addrsOf(object) {
			// The lengths of the prefixes are those of the demo's networks; the network status has addresses only.
			bits := 24
			if addr.Is6() {
				bits = 64
			}
			p.addrs = append(p.addrs, addr)
			prefixes = append(prefixes, netip.PrefixFrom(addr, bits))
		}
		host, err := network.Host(p.id.String(), prefixes...)
		if err != nil {
			return err
		}
		p.host = host
		for _, s := range d.expected.services {
			if err := host.Serve(ctx, s.proto, s.port); err != nil {
				return fmt.Errorf("%s of %s: %w", s, p.id.Key, err)
			}
		}
		d.pods = append(d.pods, p)
	}
	// The files are checked before any probe: a pod that is missing in the expectation would never be probed.
	return d.expected.covers(d.pods)
}

// addrsOf returns a pod's addresses on the secondary network.
// A status that cannot be read has no addresses; covers then finds that flows are missing.
func addrsOf(pod *corev1.Pod) []netip.Addr {
	var statuses []netv1.NetworkStatus
	if err := json.Unmarshal([]byte(pod.Annotations[netv1.NetworkStatusAnnot]), &statuses); err != nil {
		return nil
	}
	var addrs []netip.Addr
	for _, s := range statuses {
		if s.Interface != networkInterface {
			continue
		}
		for _, ip := range s.IPs {
			if addr, err := netip.ParseAddr(ip); err == nil {
				addrs = append(addrs, addr)
			}
		}
	}
	return addrs
}

// sandboxes replaces the container runtime.
// A demo needs no CRI: it knows where its pods are.
type sandboxes struct {
	demo   *demo
	synced atomic.Bool
}

// Run implements agent.SandboxSource. It sets the sandboxes once, since they do not change.
func (s *sandboxes) Run(context.Context) {
	for _, p := range s.demo.pods {
		// The ID only needs to differ between pods.
		s.demo.state.SetSandbox(p.id.UID, cache.Sandbox{ID: p.id.String(), NetNS: p.host.NetNS()})
	}
	s.demo.agent.Notify()
	s.synced.Store(true)
}

// HasSynced implements agent.SandboxSource.
func (s *sandboxes) HasSynced() bool { return s.synced.Load() }
