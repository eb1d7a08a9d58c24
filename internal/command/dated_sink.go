package command

import (
	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// datedSink tells progress when objects were changed.
type datedSink struct {
	*cache.Cache
	progress *progress
}

// UpsertPod is the cache's.
func (s datedSink) UpsertPod(o *corev1.Pod) []cache.Problem {
	s.progress.changed("pod", o)
	return s.Cache.UpsertPod(o)
}

// UpsertNamespace is the cache's.
func (s datedSink) UpsertNamespace(o *corev1.Namespace) {
	s.progress.changed("namespace", o)
	s.Cache.UpsertNamespace(o)
}

// UpsertNAD is the cache's.
func (s datedSink) UpsertNAD(o *netv1.NetworkAttachmentDefinition) []cache.Problem {
	s.progress.changed("nad", o)
	return s.Cache.UpsertNAD(o)
}

// UpsertPolicy is the cache's.
func (s datedSink) UpsertPolicy(o *mnpv1.MultiNetworkPolicy) []cache.Problem {
	s.progress.changed("policy", o)
	return s.Cache.UpsertPolicy(o)
}
