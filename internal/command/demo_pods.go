package command

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/lab"
)

// demoInterface is the pods' interface on the second network.
const demoInterface = "net1"

// demoPod is a pod of the manifests and the host that stands for it.
type demoPod struct {
	key   cache.Key
	uid   types.UID
	host  *lab.Host
	addrs []netip.Addr
}

func (p *demoPod) name() string { return p.key.Name }

// start does what the kubelet and Multus would: it gives every pod a network namespace with the addresses that its
// network status says, and starts its servers.
func (d *demo) start(ctx context.Context, network *lab.Lab) error {
	for _, pod := range d.files.Pods() {
		p := &demoPod{key: cache.Key{Namespace: pod.Namespace, Name: pod.Name}, uid: pod.UID}
		var prefixes []netip.Prefix
		for _, addr := range demoAddrs(pod) {
			bits := 24
			if addr.Is6() {
				bits = 64
			}
			p.addrs = append(p.addrs, addr)
			prefixes = append(prefixes, netip.PrefixFrom(addr, bits))
		}
		host, err := network.Host(p.key.String(), prefixes...)
		if err != nil {
			return err
		}
		p.host = host
		for _, s := range d.expected.services {
			if err := host.Serve(ctx, s.proto, s.port); err != nil {
				return fmt.Errorf("%s of %s: %w", s, p.key, err)
			}
		}
		d.pods = append(d.pods, p)
	}
	return d.expected.covers(d.pods)
}

// demoAddrs are a pod's addresses on the second network.
func demoAddrs(pod *corev1.Pod) []netip.Addr {
	var statuses []netv1.NetworkStatus
	if err := json.Unmarshal([]byte(pod.Annotations[netv1.NetworkStatusAnnot]), &statuses); err != nil {
		return nil
	}
	var addrs []netip.Addr
	for _, s := range statuses {
		if s.Interface != demoInterface {
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

// demoSandboxes is the container runtime of the demo.
type demoSandboxes struct {
	pods   []*demoPod
	state  *countingSink
	synced atomic.Bool
}

// Run tells where the pods run.
func (s *demoSandboxes) Run(context.Context) {
	for _, p := range s.pods {
		s.state.SetSandbox(p.uid, cache.Sandbox{ID: p.key.String(), NetNS: p.host.NetNS()})
	}
	s.state.Notify()
	s.synced.Store(true)
}

// HasSynced says whether Run has.
func (s *demoSandboxes) HasSynced() bool { return s.synced.Load() }

// countingSink is the cache, and counts what the informers have put into it, so that the demo can tell when it is all
// of it.
type countingSink struct {
	*cache.Cache
	notify func()

	mu       sync.Mutex
	pods     map[cache.Key]bool
	policies map[cache.Key]bool
	notified [2]int // pods and policies that the agent knows of
}

// UpsertPod counts the pod.
func (s *countingSink) UpsertPod(pod *corev1.Pod) []cache.Problem {
	problems := s.Cache.UpsertPod(pod)
	s.count(&s.pods, cache.Key{Namespace: pod.Namespace, Name: pod.Name})
	return problems
}

// UpsertPolicy counts the policy.
func (s *countingSink) UpsertPolicy(policy *mnpv1.MultiNetworkPolicy) []cache.Problem {
	problems := s.Cache.UpsertPolicy(policy)
	s.count(&s.policies, cache.Key{Namespace: policy.Namespace, Name: policy.Name})
	return problems
}

func (s *countingSink) count(kind *map[cache.Key]bool, key cache.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *kind == nil {
		*kind = map[cache.Key]bool{}
	}
	(*kind)[key] = true
}

// Notify tells the agent, and then counts as told what was counted before.
func (s *countingSink) Notify() {
	s.mu.Lock()
	now := [2]int{len(s.pods), len(s.policies)}
	s.mu.Unlock()
	s.notify()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range now {
		s.notified[i] = max(s.notified[i], now[i])
	}
}

// has says whether the agent has been told of so many pods and policies.
func (s *countingSink) has(pods, policies int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.notified == [2]int{pods, policies}
}
