package informers

import (
	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
)

// TraceAnnotation on a pod asks its node's agent to trace it.
const TraceAnnotation = "multi-networkpolicy/trace"

// The annotations that the cache reads.
const (
	networkStatusAnnotation    = "k8s.v1.cni.cncf.io/network-status"
	oldNetworkStatusAnnotation = "k8s.v1.cni.cncf.io/networks-status"
	networksAnnotation         = "k8s.v1.cni.cncf.io/networks"
	policyForAnnotation        = "k8s.v1.cni.cncf.io/policy-for"
)

// trimFor returns what replaces an object by one that holds only what the cache reads, before an informer stores it:
// every node's agent sees all pods of the cluster, and the rest of a pod is most of it. What it does not know it leaves
// as it is.
func trimFor(node string) toolscache.TransformFunc {
	return func(obj any) (any, error) {
		if pod, ok := obj.(*corev1.Pod); ok {
			return trimPod(pod, node), nil
		}
		return trim(obj)
	}
}

func trim(obj any) (any, error) {
	switch o := obj.(type) {
	case *corev1.Namespace:
		return &corev1.Namespace{ObjectMeta: trimMeta(o.ObjectMeta)}, nil
	case *netv1.NetworkAttachmentDefinition:
		return &netv1.NetworkAttachmentDefinition{ObjectMeta: trimMeta(o.ObjectMeta), Spec: o.Spec}, nil
	case *mnpv1.MultiNetworkPolicy:
		return &mnpv1.MultiNetworkPolicy{ObjectMeta: trimMeta(o.ObjectMeta, policyForAnnotation), Spec: o.Spec}, nil
	default:
		return obj, nil
	}
}

// trimMeta keeps the annotations named, and the time of the last change as that of the creation, which nobody asks for.
// The resource version must stay: an informer takes an update that does not
// change it for a resync.
func trimMeta(m metav1.ObjectMeta, annotations ...string) metav1.ObjectMeta {
	kept := metav1.ObjectMeta{
		Name:              m.Name,
		Namespace:         m.Namespace,
		UID:               m.UID,
		ResourceVersion:   m.ResourceVersion,
		Labels:            m.Labels,
		DeletionTimestamp: m.DeletionTimestamp,
		CreationTimestamp: lastChange(m),
	}
	for _, name := range annotations {
		value, ok := m.Annotations[name]
		if !ok {
			continue
		}
		if kept.Annotations == nil {
			kept.Annotations = make(map[string]string, 1)
		}
		kept.Annotations[name] = value
	}
	return kept
}

// lastChange is when somebody last changed an object, as far as the API server says.
func lastChange(m metav1.ObjectMeta) metav1.Time {
	last := m.CreationTimestamp
	for _, f := range m.ManagedFields {
		if f.Time != nil && f.Time.After(last.Time) {
			last = *f.Time
		}
	}
	return last
}

// trimPod keeps what a pod asks for, or somebody about it, only where it is to run.
func trimPod(p *corev1.Pod, node string) *corev1.Pod {
	annotations := []string{networkStatusAnnotation, oldNetworkStatusAnnotation}
	if p.Spec.NodeName == node {
		annotations = append(annotations, networksAnnotation, TraceAnnotation, corev1.MirrorPodAnnotationKey)
	}
	return &corev1.Pod{
		ObjectMeta: trimMeta(p.ObjectMeta, annotations...),
		Spec: corev1.PodSpec{
			NodeName:       p.Spec.NodeName,
			HostNetwork:    p.Spec.HostNetwork,
			InitContainers: trimContainers(p.Spec.InitContainers),
			Containers:     trimContainers(p.Spec.Containers),
		},
		Status: corev1.PodStatus{Phase: p.Status.Phase},
	}
}

// trimContainers keeps the ports that have a name, as nothing else of a container matters to a policy. The restart
// policy tells a sidecar from a container that ends before the pod starts.
func trimContainers(containers []corev1.Container) []corev1.Container {
	var kept []corev1.Container
	for _, c := range containers {
		var ports []corev1.ContainerPort
		for _, p := range c.Ports {
			if p.Name != "" {
				ports = append(ports, corev1.ContainerPort{Name: p.Name, ContainerPort: p.ContainerPort, Protocol: p.Protocol})
			}
		}
		if len(ports) > 0 {
			kept = append(kept, corev1.Container{Name: c.Name, Ports: ports, RestartPolicy: c.RestartPolicy})
		}
	}
	return kept
}
