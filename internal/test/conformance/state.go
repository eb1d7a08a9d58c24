package conformance

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
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
	kindPod       = "Pod"
	kindNamespace = "Namespace"
	kindNAD       = "NetworkAttachmentDefinition"
	kindPolicy    = "MultiNetworkPolicy"
)

// Ref names an object. The namespace is empty for a Namespace.
type Ref struct {
	Kind string
	Key
}

// String returns the kind and the key, for example "Pod a/x".
func (r Ref) String() string { return r.Kind + " " + strings.TrimPrefix(r.Key.String(), "/") }

// refOf returns the Ref of an object.
func refOf(o Object) Ref {
	r := Ref{Key: Key{Namespace: o.GetNamespace(), Name: o.GetName()}}
	switch o.(type) {
	case *corev1.Pod:
		r.Kind = kindPod
	case *corev1.Namespace:
		r.Kind = kindNamespace
	case *netv1.NetworkAttachmentDefinition:
		r.Kind = kindNAD
	case *mnpv1.MultiNetworkPolicy:
		r.Kind = kindPolicy
	default:
		panic(fmt.Sprintf("an object of kind %T", o))
	}
	return r
}

// State holds all objects of a moment. Objects are never changed, only replaced, so states may share them.
type State map[Ref]Object

// objectsOf returns the objects of a kind, sorted by namespace and name, so that runs do not depend on the order of a
// map.
func objectsOf[T Object](s State) []T {
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

// pod returns a pod, or nil.
func (s State) pod(key Key) *corev1.Pod {
	p, _ := s[Ref{kindPod, key}].(*corev1.Pod)
	return p
}

// namespace returns a namespace, or nil.
func (s State) namespace(name string) *corev1.Namespace {
	ns, _ := s[Ref{kindNamespace, Key{Name: name}}].(*corev1.Namespace)
	return ns
}

// Event is something that happens. Exactly one field is set.
type Event struct {
	Put    Object       // the object is created, or replaced by this version
	Gone   *Ref         // the object is deleted
	Settle bool         // the next event happens only when the agent has done all of its work
	Stop   bool         // the agent ends; its rules stay
	Start  bool         // another agent starts
	Open   *Expectation // connections are opened, and stay open
	Forget bool         // all entries of connection tracking are deleted
	// An agent of an earlier installation leaves its table in the pod. The Oracle cannot judge until another agent
	// starts.
	Table *Key
}

// applyTo returns the state after the event. It does not change s.
func (e Event) applyTo(s State) State {
	next := maps.Clone(s)
	switch {
	case e.Put != nil:
		next[refOf(e.Put)] = e.Put
	case e.Gone != nil:
		delete(next, *e.Gone)
	}
	return next
}

// Step is a burst of events, and the verdicts that hold once the agent has applied all of them.
type Step struct {
	// An optional title.
	Name   string
	Events []Event
	// The lines of a person; random steps have none. The Oracle judges every packet also without them.
	Expect []Expectation
	Quiet  bool // nothing is sent after the step
}

// Case is a sequence of steps that starts with an empty cluster.
type Case struct {
	Name string
	// The agent's flags through the whole case.
	Flags Flags
	Needs []string // the types of devices, or "sctp", that a kernel must have to play the case
	// The addresses of the outside, which exist through the whole case.
	Outsiders []Outsider
	Steps     []Step
}

// Size returns the number of events, without events that only wait. Shrinking makes it smaller.
func (c Case) Size() int {
	n := 0
	for _, s := range c.Steps {
		for _, e := range s.Events {
			if !e.Settle {
				n++
			}
		}
	}
	return n
}

// Outsider is an address on a wire that belongs to no pod.
// Policies know it by blocks only.
type Outsider struct {
	Wire string
	Addr netip.Addr
}

// isOutside reports whether policies do not concern a pod: it is on its node's network, or has ended.
func isOutside(p *corev1.Pod) bool {
	return p.Spec.HostNetwork || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}
