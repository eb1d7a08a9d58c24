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

// Object is any object of the four kinds.
type Object interface {
	metav1.Object
	runtime.Object
}

// The kinds.
const (
	kindPod       = "Pod"
	kindNamespace = "Namespace"
	kindNAD       = "NetworkAttachmentDefinition"
	kindPolicy    = "MultiNetworkPolicy"
)

// Ref names an object.
type Ref struct {
	Kind string
	Key
}

// String is "Pod a/x".
func (r Ref) String() string { return r.Kind + " " + strings.TrimPrefix(r.Key.String(), "/") }

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

// State is all objects that there are. They are never changed, only replaced.
type State map[Ref]Object

// objectsOf returns the objects of a kind, sorted.
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

func (s State) pod(key Key) *corev1.Pod {
	p, _ := s[Ref{kindPod, key}].(*corev1.Pod)
	return p
}

func (s State) namespace(name string) *corev1.Namespace {
	ns, _ := s[Ref{kindNamespace, Key{Name: name}}].(*corev1.Namespace)
	return ns
}

// Event is something that happens: exactly one field is set.
type Event struct {
	Put    Object       // it is there, or is now this
	Gone   *Ref         // it is deleted
	Settle bool         // nothing more happens until the agent has done all of its work
	Stop   bool         // the agent ends
	Start  bool         // another agent starts
	Open   *Expectation // connections are opened that stay open
	Forget bool         // all entries of connection tracking are deleted
	Table  *Key         // the pod has a table of the agent's name that another agent left; the oracle does not know of it
}

// applyTo returns the state after the event.
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

// Step is a burst of events and what holds once they are digested.
type Step struct {
	Name   string
	Events []Event
	Expect []Expectation
	Quiet  bool // nothing is probed after it
}

// Case is a sequence of steps from an empty cluster.
type Case struct {
	Name      string
	Flags     Flags
	Needs     []string // types of devices, and "sctp", without which it cannot be played
	Outsiders []Outsider
	Steps     []Step
}

// Size is the number of its events, without those that only wait.
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

// Outsider is an address on a wire that is no pod's.
type Outsider struct {
	Wire string
	Addr netip.Addr
}

// isOutside says whether a pod has nothing to do with policies: it is on the host's network, or has ended.
func isOutside(p *corev1.Pod) bool {
	return p.Spec.HostNetwork || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}
