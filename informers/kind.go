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
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// The kinds of objects, as in Events, log lines and metrics.
const (
	KindPod       = "Pod"
	KindNamespace = "Namespace"
	KindNAD       = "NetworkAttachmentDefinition"
	KindPolicy    = "MultiNetworkPolicy"
)

// TraceAnnotation on a pod asks the agent of its node to trace the pod's packets.
const TraceAnnotation = "multi-networkpolicy/trace"

// Settings control the conversion of objects into records. The same settings must go to the source and to the
// informers.
type Settings struct {
	Node string // pods on this node are local; empty: all pods are local
	// Limits bound the parts of a policy or a pod that are read; the rest is counted as a problem.
	Limits *policy.Limits
}

// Sink receives the objects. *cache.Cache implements it. Informers call it from several goroutines. The methods must be
// cheap: each of them runs in the goroutine of a watch.
type Sink interface {
	// UpsertPod returns the problems of the pod's network annotations. The other kinds carry their problems in the
	// argument.
	UpsertPod(cache.Pod) []policy.Problem
	DeletePod(cache.Key)
	// Pods and the other lists return the keys of all objects in the sink, so that a new list can remove the objects
	// that it lacks.
	Pods() []cache.Key
	UpsertNamespace(cache.Namespace)
	DeleteNamespace(name string)
	Namespaces() []cache.Key
	UpsertNAD(cache.NAD)
	DeleteNAD(cache.Key)
	NADs() []cache.Key
	UpsertPolicy(*policy.Policy)
	// RestorePolicy puts the rules of a policy back that were dropped for lack of room. Unlike UpsertPolicy, it ignores
	// a version other than the version in the sink.
	RestorePolicy(*policy.Policy)
	DeletePolicy(cache.Key)
	Policies() []cache.Key
	// TakeRefetch returns the policies that must be read again, and forgets them.
	TakeRefetch() []cache.Key
}

// kind connects the records of a kind with the methods of the sink.
type kind struct {
	apiVersion string
	name       string
	upsert     func(Sink, *record) []policy.Problem // returns all problems of the object
	remove     func(Sink, cache.Key)
	keys       func(Sink) []cache.Key // the objects in the sink
}

// kinds has the four kinds, each with its methods of Sink.
var kinds = struct{ pod, namespace, nad, policy kind }{
	pod: kind{
		corev1.SchemeGroupVersion.String(), KindPod,
		func(s Sink, r *record) []policy.Problem { return s.UpsertPod(r.pod.Pod) }, Sink.DeletePod, Sink.Pods,
	},
	namespace: kind{
		corev1.SchemeGroupVersion.String(), KindNamespace,
		func(s Sink, r *record) []policy.Problem { s.UpsertNamespace(*r.namespace); return r.namespace.Problems },
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
// An empty Node makes all pods local, for commands that know no node.
func (s Settings) isLocal(node string) bool { return s.Node == "" || node == s.Node }

// podRecordOf returns the record of a pod.
func (s Settings) podRecordOf(p *corev1.Pod) *record {
	r := newRecord(p)
	r.pod = &podRecord{Pod: cache.NewPod(p, s.Node, s.Limits)}
	// A trace is the business of the pod's node alone.
	if text, ok := p.Annotations[TraceAnnotation]; ok && s.isLocal(p.Spec.NodeName) {
		r.pod.trace = &text
	}
	return r
}

// namespaceRecordOf returns the record of a namespace.
func namespaceRecordOf(ns *corev1.Namespace) *record {
	r := newRecord(ns)
	namespace := cache.NewNamespace(ns)
	r.namespace = &namespace
	return r
}

// rawObject is a custom resource with undecoded content. The schema in the API server may be loose, so the content may be any
// JSON.
type rawObject struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Namespace       string `json:"namespace"`
		Name            string `json:"name"`
		UID             string `json:"uid"`
		ResourceVersion string `json:"resourceVersion"`
		// Fields with a RawMessage may have any JSON in an object that no schema has checked; each is decoded where it is
		// used.
		Generation        json.RawMessage   `json:"generation"`
		Annotations       map[string]string `json:"annotations"`
		CreationTimestamp json.RawMessage   `json:"creationTimestamp"`
		ManagedFields     json.RawMessage   `json:"managedFields"`
	} `json:"metadata"`
	Spec json.RawMessage `json:"spec"`
}

// lastChange returns the time of the last change. Without readable managed fields it returns the time of the creation.
func (o *rawObject) lastChange() time.Time {
	var created metav1.Time
	var managers []metav1.ManagedFieldsEntry
	_ = json.Unmarshal(o.Metadata.CreationTimestamp, &created) //nolint:errcheck // the time is for a metric
	_ = json.Unmarshal(o.Metadata.ManagedFields, &managers)    //nolint:errcheck // as above
	return lastChange(created, managers)
}

// definedSince returns the value of cache.NAD.Since, in seconds since 1970. The API server raises the generation with each change
// of the spec. Its times are in whole seconds, so a pod with the time of an edit may be older than the edit. So the result is the
// second after an edit.
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
		return math.MaxInt64 // the time of the last edit is unknown
	}
	return lastChange(created, managers).Unix() + 1
}

// nadRecordOf sets the content of the record of a NetworkAttachmentDefinition. A spec that cannot be read becomes an unreadable
// configuration: the type of the network is then unknown, and policies isolate it.
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

// policyRecordOf compiles a policy and puts it into the record. It runs in the goroutine of the watch, before the cache's lock.
func (s Settings) policyRecordOf(o *rawObject, r *record) {
	p := policy.Object{Key: r.Key, UID: r.uid, Version: r.version, Spec: o.Spec}
	if networks, ok := o.Metadata.Annotations[policy.ForAnnotation]; ok {
		p.Networks = &networks
	}
	if mode, ok := o.Metadata.Annotations[policy.ModeAnnotation]; ok {
		p.Mode = &mode
	}
	r.policy = policy.Compile(p, s.Limits)
}
