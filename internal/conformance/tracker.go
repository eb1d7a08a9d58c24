package conformance

import (
	"maps"
	"sync"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// Tracker stands between the informers and the cache and knows which version of each object has got there, so that it
// can be told when all of them have.
type Tracker struct {
	sink   informers.Sink
	notify func()

	mu       sync.Mutex
	versions map[Ref]string // that the sink has
	handled  int            // events
	told     int            // events that the agent was notified of
}

// NewTracker wraps the sink, and what is called after each change of it.
func NewTracker(sink informers.Sink, notify func()) *Tracker {
	return &Tracker{sink: sink, notify: notify, versions: map[Ref]string{}}
}

// Has says whether the agent knows these versions and no other objects.
func (t *Tracker) Has(versions map[Ref]string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.told == t.handled && maps.Equal(t.versions, versions)
}

// Notify tells the agent.
func (t *Tracker) Notify() {
	t.mu.Lock()
	handled := t.handled
	t.mu.Unlock()
	t.notify()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.told = max(t.told, handled)
}

func (t *Tracker) put(o Object) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.versions[refOf(o)] = o.GetResourceVersion()
	t.handled++
}

func (t *Tracker) remove(kind string, key Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.versions, Ref{kind, key})
	t.handled++
}

// UpsertPod hands on a pod.
func (t *Tracker) UpsertPod(o *corev1.Pod) []cache.Problem {
	defer t.put(o)
	return t.sink.UpsertPod(o)
}

// DeletePod hands on the end of a pod.
func (t *Tracker) DeletePod(key cache.Key) {
	defer t.remove(kindPod, key)
	t.sink.DeletePod(key)
}

// UpsertNamespace hands on a namespace.
func (t *Tracker) UpsertNamespace(o *corev1.Namespace) {
	defer t.put(o)
	t.sink.UpsertNamespace(o)
}

// DeleteNamespace hands on the end of a namespace.
func (t *Tracker) DeleteNamespace(name string) {
	defer t.remove(kindNamespace, Key{Name: name})
	t.sink.DeleteNamespace(name)
}

// UpsertNAD hands on a network.
func (t *Tracker) UpsertNAD(o *netv1.NetworkAttachmentDefinition) []cache.Problem {
	defer t.put(o)
	return t.sink.UpsertNAD(o)
}

// DeleteNAD hands on the end of a network.
func (t *Tracker) DeleteNAD(key cache.Key) {
	defer t.remove(kindNAD, key)
	t.sink.DeleteNAD(key)
}

// UpsertPolicy hands on a policy.
func (t *Tracker) UpsertPolicy(o *mnpv1.MultiNetworkPolicy) []cache.Problem {
	defer t.put(o)
	return t.sink.UpsertPolicy(o)
}

// DeletePolicy hands on the end of a policy.
func (t *Tracker) DeletePolicy(key cache.Key) {
	defer t.remove(kindPolicy, key)
	t.sink.DeletePolicy(key)
}
