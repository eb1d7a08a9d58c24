package informers

import (
	"encoding/json"
	"math"
	"time"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// Kinds, as Events name them.
const (
	KindPod       = "Pod"
	KindNamespace = "Namespace"
	KindNAD       = "NetworkAttachmentDefinition"
	KindPolicy    = "MultiNetworkPolicy"
)

// TraceAnnotation on a pod asks the agent of its node to trace the pod's packets.
const TraceAnnotation = "multi-networkpolicy/trace"

// Settings say how objects become records.
type Settings struct {
	Node   string // pods on this node are local; empty: pods of all nodes are
	Limits *policy.Limits
}

// Sink takes the objects; *cache.Cache is one.
type Sink interface {
	UpsertPod(cache.Pod) []policy.Problem
	DeletePod(cache.Key)
	Pods() []cache.Key
	UpsertNamespace(cache.Namespace)
	DeleteNamespace(name string)
	Namespaces() []cache.Key
	UpsertNAD(cache.NAD)
	DeleteNAD(cache.Key)
	NADs() []cache.Key
	UpsertPolicy(*policy.Policy)
	RestorePolicy(*policy.Policy)
	DeletePolicy(cache.Key)
	Policies() []cache.Key
	TakeRefetch() []cache.Key
}

// kind says how records of one kind go into the sink.
type kind struct {
	apiVersion string
	name       string
	upsert     func(Sink, *record) []policy.Problem
	remove     func(Sink, cache.Key)
	keys       func(Sink) []cache.Key
}

var kinds = struct{ pod, namespace, nad, policy kind }{
	pod: kind{
		corev1.SchemeGroupVersion.String(), KindPod,
		func(s Sink, r *record) []policy.Problem { return s.UpsertPod(r.pod.Pod) }, Sink.DeletePod, Sink.Pods,
	},
	namespace: kind{
		corev1.SchemeGroupVersion.String(), KindNamespace,
		func(s Sink, r *record) []policy.Problem { s.UpsertNamespace(*r.namespace); return nil },
		func(s Sink, key cache.Key) { s.DeleteNamespace(key.Name) }, Sink.Namespaces,
	},
	nad: kind{
		netv1.SchemeGroupVersion.String(), KindNAD,
		func(s Sink, r *record) []policy.Problem { s.UpsertNAD(*r.nad); return r.nad.Problems }, Sink.DeleteNAD, Sink.NADs,
	},
	policy: kind{
		mnpv1.SchemeGroupVersion.String(), KindPolicy,
		func(s Sink, r *record) []policy.Problem { s.UpsertPolicy(r.policy); return r.policy.Problems }, Sink.DeletePolicy, Sink.Policies,
	},
}

// isLocal reports whether a pod on a node is local.
func (s Settings) isLocal(node string) bool { return s.Node == "" || node == s.Node }

// podRecordOf returns the record of a pod.
func (s Settings) podRecordOf(p *corev1.Pod) *record {
	r := newRecord(p)
	r.pod = &podRecord{Pod: cache.NewPod(p, s.Node, s.Limits)}
	if text, ok := p.Annotations[TraceAnnotation]; ok && s.isLocal(p.Spec.NodeName) {
		r.pod.trace = &text
	}
	return r
}

// namespaceRecordOf returns the record of a namespace.
func namespaceRecordOf(ns *corev1.Namespace) *record {
	r := newRecord(ns)
	r.namespace = &cache.Namespace{Name: ns.Name, Labels: labelindex.NewSet(ns.Labels)}
	return r
}

// rawObject is a custom resource, its content not decoded yet. The schema of the API server may be loose: the content may
// be any JSON.
type rawObject struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Namespace         string            `json:"namespace"`
		Name              string            `json:"name"`
		UID               string            `json:"uid"`
		ResourceVersion   string            `json:"resourceVersion"`
		Generation        json.RawMessage   `json:"generation"`
		Annotations       map[string]string `json:"annotations"`
		CreationTimestamp json.RawMessage   `json:"creationTimestamp"`
		ManagedFields     json.RawMessage   `json:"managedFields"`
	} `json:"metadata"`
	Spec json.RawMessage `json:"spec"`
}

// lastChange returns the time of the last change. Without readable managed fields it is the time of the creation.
func (o *rawObject) lastChange() time.Time {
	var created metav1.Time
	var managers []metav1.ManagedFieldsEntry
	_ = json.Unmarshal(o.Metadata.CreationTimestamp, &created) //nolint:errcheck // the time is for a metric
	_ = json.Unmarshal(o.Metadata.ManagedFields, &managers)    //nolint:errcheck // as above
	return lastChange(created, managers)
}

// definedSince returns the time that cache.NAD.Since asks for. The API server raises the generation with each change of the
// spec. It writes times in whole seconds, so a pod that is as old as an edit can be older.
func (o *rawObject) definedSince() int64 {
	var created metav1.Time
	var generation int64
	if json.Unmarshal(o.Metadata.CreationTimestamp, &created) != nil || created.IsZero() {
		return 0
	}
	if json.Unmarshal(o.Metadata.Generation, &generation) == nil && generation <= 1 {
		return created.Unix()
	}
	var managers []metav1.ManagedFieldsEntry
	if json.Unmarshal(o.Metadata.ManagedFields, &managers) != nil || len(managers) == 0 {
		return math.MaxInt64 // nobody knows when the last edit was
	}
	return lastChange(created, managers).Unix() + 1
}

// nadRecordOf returns the record of a NetworkAttachmentDefinition.
func (s Settings) nadRecordOf(o *rawObject, r *record) {
	var spec struct {
		Config string `json:"config"`
	}
	config := "{" // unreadable
	if len(o.Spec) == 0 || json.Unmarshal(o.Spec, &spec) == nil {
		config = spec.Config
	}
	nad := cache.NewNAD(r.Key, config)
	nad.Since = o.definedSince()
	r.nad = &nad
}

// policyRecordOf returns the record of a policy, compiled.
func (s Settings) policyRecordOf(o *rawObject, r *record) {
	p := policy.Object{Key: r.Key, UID: r.uid, Version: r.version, Spec: o.Spec}
	if networks, ok := o.Metadata.Annotations[policy.ForAnnotation]; ok {
		p.Networks = &networks
	}
	r.policy = policy.Compile(p, s.Limits)
}
