package oracle

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Object is an object of one of the four kinds that the agent watches.
type Object interface {
	metav1.Object
	runtime.Object
}

// The kinds of objects.
const (
	KindPod       = "Pod"
	KindNamespace = "Namespace"
	KindNAD       = "NetworkAttachmentDefinition"
	KindPolicy    = "MultiNetworkPolicy"
)

// Ref names an object. The namespace is empty for a Namespace.
type Ref struct {
	Kind string
	Key
}

// String returns the kind and the key, for example "Pod a/x".
func (r Ref) String() string { return r.Kind + " " + strings.TrimPrefix(r.Key.String(), "/") }

// RefOf returns the Ref of an object.
func RefOf(o Object) Ref {
	r := Ref{Key: Key{Namespace: o.GetNamespace(), Name: o.GetName()}}
	switch o.(type) {
	case *corev1.Pod:
		r.Kind = KindPod
	case *corev1.Namespace:
		r.Kind = KindNamespace
	case *netv1.NetworkAttachmentDefinition:
		r.Kind = KindNAD
	case *mnpv1.MultiNetworkPolicy:
		r.Kind = KindPolicy
	default:
		panic(fmt.Sprintf("an object of kind %T", o))
	}
	return r
}

// State holds all objects of a moment. Objects are never changed, only replaced, so states may share them.
type State map[Ref]Object

// ObjectsOf returns the objects of a kind, sorted by namespace and name, so that runs do not depend on the order of a
// map.
func ObjectsOf[T Object](s State) []T {
	var out []T
	for _, o := range s {
		if o, ok := o.(T); ok {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b T) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return out
}

// Pod returns a pod, or nil.
func (s State) Pod(key Key) *corev1.Pod {
	p, _ := s[Ref{KindPod, key}].(*corev1.Pod)
	return p
}

// namespace returns a namespace, or nil.
func (s State) namespace(name string) *corev1.Namespace {
	ns, _ := s[Ref{KindNamespace, Key{Name: name}}].(*corev1.Namespace)
	return ns
}

// IsOutside reports whether policies do not concern a pod: it is on its node's network, or has ended.
func IsOutside(p *corev1.Pod) bool {
	return p.Spec.HostNetwork || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}
