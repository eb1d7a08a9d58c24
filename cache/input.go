package cache

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// Annotations of a pod. Multus writes the status; older versions wrote it under another name. NetworksAnnotation is the
// Network Selection Annotation of the Multi-Network specification, by which a pod requests networks.
const (
	StatusAnnotation       = "k8s.v1.cni.cncf.io/network-status"
	LegacyStatusAnnotation = "k8s.v1.cni.cncf.io/networks-status"
	NetworksAnnotation     = "k8s.v1.cni.cncf.io/networks"
)

// Pod is the part of a Pod object that policies depend on. The texts of annotations are kept undecoded: they are
// decoded only if they have changed.
type Pod struct {
	Key
	UID     types.UID
	Created int64              // seconds since 1970; 0: unknown
	Node    string             // empty: not scheduled
	Outside string             // OnHostNetwork or Terminated: no policy applies; else empty
	Labels  labelindex.Set     // labels of the object; empty if CutLabels
	Ports   []policy.NamedPort // sorted
	Mirrors types.UID          // UID of the static pod that the pod mirrors; empty for other pods

	RuntimeClass string // empty: the default, or the pod is not local

	DropLog Choice // see DropLogAnnotation; choiceUnset if the pod is not local

	CutLabels bool // the labels exceed a limit: the pod is nobody's peer, and policies select it whatever they say of labels

	Status      string // the network status as written; empty: absent
	StatusField string // the annotation that holds it
	Requested   string // the requested networks as written; empty: none, or the pod is not local
}

// Values of Pod.Outside.
// The texts are the reasons that a user reads.
const (
	OnHostNetwork = "it is on the host's network, where no policy applies"
	Terminated    = "it has ended"
)

// NewPod reads a Pod object. Requests only matter for pods of the node, all pods if the node is empty.
func NewPod(obj *corev1.Pod, node string, limits *policy.Limits) Pod {
	p := Pod{
		Key:    Key{Namespace: obj.Namespace, Name: obj.Name},
		UID:    obj.UID,
		Node:   obj.Spec.NodeName,
		Labels: labelindex.NewSet(obj.Labels),
		Ports:  policy.NamedPorts(obj, limits.PodPorts),
	}
	if !obj.CreationTimestamp.IsZero() {
		p.Created = obj.CreationTimestamp.Unix()
	}
	if labelBytes(obj.Labels) > limits.PodLabelBytes {
		p.Labels, p.CutLabels = nil, true
	}
	switch {
	case obj.Spec.HostNetwork:
		p.Outside = OnHostNetwork
	case obj.Status.Phase == corev1.PodSucceeded, obj.Status.Phase == corev1.PodFailed:
		p.Outside = Terminated
	}
	var has bool
	p.StatusField = StatusAnnotation
	if p.Status, has = obj.Annotations[StatusAnnotation]; !has {
		if legacy, ok := obj.Annotations[LegacyStatusAnnotation]; ok {
			p.Status, p.StatusField = legacy, LegacyStatusAnnotation
		}
	}
	if obj.Spec.NodeName == node || node == "" {
		p.Mirrors = types.UID(obj.Annotations[corev1.MirrorPodAnnotationKey])
		p.Requested = obj.Annotations[NetworksAnnotation]
		value, ok := obj.Annotations[DropLogAnnotation]
		p.DropLog = choiceOf(value, ok)
		if obj.Spec.RuntimeClassName != nil {
			p.RuntimeClass = *obj.Spec.RuntimeClassName
		}
	}
	return p
}

// labelBytes returns the number of bytes in keys and values.
func labelBytes(labels map[string]string) (n int) {
	for key, value := range labels {
		n += len(key) + len(value)
	}
	return n
}

// hasStatus reports whether the pod has a network status, so that it may be a peer.
func (o *Pod) hasStatus() bool { return strings.TrimSpace(o.Status) != "" }
