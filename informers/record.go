package informers

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// record is an object between the watch and the sink: its identity, and the part that policies depend on. The rest of the object
// is dropped right after decoding, so a list of all pods of a cluster takes little memory. A record never changes.
type record struct {
	// The key, the uid and the version are set as far as the object could be read.
	cache.Key
	uid     types.UID
	version string // resource version
	end     bool   // a bookmark that ends the initial events of a watch
	// changed is the time of the last change by a client; zero: unknown.
	changed time.Time
	problem string // why the object cannot be decoded; empty: it was decoded
	isTaken bool   // the sink has the content already

	// The content. Only the field for the object's kind is set, and none if there is a problem.
	pod       *podRecord
	namespace *cache.Namespace
	nad       *cache.NAD
	policy    *policy.Policy
}

// taken returns a record without content, for an object that the sink has. The reflector keeps it in the place of the
// object until the initial events end.
func (r *record) taken() *record {
	return &record{Key: r.Key, uid: r.uid, version: r.version, end: r.end, isTaken: true}
}

// podRecord is a pod with its request for a trace.
type podRecord struct {
	cache.Pod
	trace *string // value of TraceAnnotation; nil: absent, or the pod is not local
}

// GetObjectMeta implements metav1.ObjectMetaAccessor for the reflector, which reads the resource version and the mark
// of the last initial event.
func (r *record) GetObjectMeta() metav1.Object {
	m := &metav1.ObjectMeta{Namespace: r.Namespace, Name: r.Name, UID: r.uid, ResourceVersion: r.version}
	if r.end {
		m.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	}
	return m
}

// GetObjectKind implements runtime.Object. A record has no kind of the API.
func (r *record) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject implements runtime.Object. A record never changes.
func (r *record) DeepCopyObject() runtime.Object { return r }

// recordList is a list of records.
type recordList struct {
	metav1.ListMeta
	Items []*record
}

// GetObjectKind implements runtime.Object.
func (l *recordList) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject implements runtime.Object. A complete list never changes.
func (l *recordList) DeepCopyObject() runtime.Object { return l }

// newRecord returns a record with the identity of an object.
func newRecord(o metav1.Object) *record {
	return &record{
		Key: cache.Key{Namespace: o.GetNamespace(), Name: o.GetName()}, uid: o.GetUID(), version: o.GetResourceVersion(),
		end:     o.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true",
		changed: lastChange(o.GetCreationTimestamp(), o.GetManagedFields()),
	}
}

// lastChange returns the time of the last change to an object: the latest time of its managed fields, or its creation.
func lastChange(created metav1.Time, managers []metav1.ManagedFieldsEntry) time.Time {
	last := created.Time
	for i := range managers {
		if t := managers[i].Time; t != nil && t.After(last) {
			// A managed field has the time at which its manager last changed the object (metadata.managedFields).
			last = t.Time
		}
	}
	return last
}
