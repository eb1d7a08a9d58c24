package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The cluster has four kinds of pods, by the label app. The policies select web, and allow the clients of their own
// namespace and the probes of all namespaces of a team. No policy selects or allows the other pods.
const (
	web     = "web"
	client  = "client"
	probe   = "probe"
	other   = "other"
	teams   = 50  // values of the namespaces' label team
	perNode = 110 // pods of a node: the default limit of the kubelet
)

// selectingNamespaces is the number of namespaces that have the policies of the cluster.
const selectingNamespaces = 400

// cluster describes the objects of the API server. Objects are made from their number when they are sent, so a large
// cluster takes no memory. Pod i is in namespace i modulo namespaces; the first pods are local.
type cluster struct {
	pods, namespaces, policies, local int
	// clients makes so many remote pods clients, from the first on, so that a namespace has a large group; the other
	// remote pods have no policy. 0: all kinds of pods take turns.
	clients int
	// spacing is the distance between the addresses of consecutive pods. With 1, addresses are neighbors and form a single range.
	spacing int
}

func namespaceName(i int) string { return "ns-" + strconv.Itoa(i) }

// app returns the kind of pod i before any churn.
func (c *cluster) app(i int) string {
	if i < c.local {
		return web
	}
	if c.clients > 0 {
		if i < c.local+c.clients {
			return client
		}
		return other
	}
	// i/namespaces counts the pods of a namespace, so each large namespace has pods of all kinds.
	return [...]string{client, probe, other, other}[i/c.namespaces%4]
}

// pod returns pod i. It has the size of a usual pod, because the agent must decode all of it.
func (c *cluster) pod(i int, app string) *corev1.Pod {
	node := "node-0"
	if i >= c.local {
		node = "node-" + strconv.Itoa(1+i/perNode)
	}
	address := i * c.spacing % (1 << 24)
	name, uid := fmt.Sprintf("application-5d4f8c7b9-%07d", i), uidOf(i)
	container := corev1.Container{
		Name: "app", Image: "registry.example.com/team/application:v1.2.3", Command: []string{"/bin/app", "--port", "8080"},
		Env:          []corev1.EnvVar{{Name: "NODE", Value: node}, {Name: "NAME", Value: name}},
		VolumeMounts: []corev1.VolumeMount{{Name: "token", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"}},
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespaceName(i % c.namespaces), Name: name, UID: uid, CreationTimestamp: metav1.Unix(1_700_000_000, 0),
			Labels: map[string]string{"app": app, "pod-template-hash": "5d4f8c7b9", "tier": "backend"},
			Annotations: map[string]string{
				"k8s.v1.cni.cncf.io/networks": "default/net",
				"k8s.v1.cni.cncf.io/network-status": fmt.Sprintf(`[{"name": "cluster", "interface": "eth0", "ips": ["192.168.%d.%d"], `+
					`"default": true, "dns": {}}, {"name": "default/net", "interface": "net1", "ips": ["10.%d.%d.%d"], "mac": "02:00:00:00:00:01", "dns": {}}]`,
					i>>8&255, i&255, address>>16, address>>8&255, address&255),
			},
			ManagedFields: []metav1.ManagedFieldsEntry{managed("kube-controller-manager", ""), managed("multus", "status"), managed("kubelet", "status")},
		},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{container, container}, ServiceAccountName: "default"},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: fmt.Sprintf("192.168.%d.%d", i>>8&255, i&255),
			Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "app", Ready: true, ContainerID: "containerd://" + strings.Repeat("0", 64)}},
		},
	}
}

// uidOf returns the UID of pod i.
func uidOf(i int) types.UID { return types.UID(fmt.Sprintf("5f0c3e1a-7d42-4b8e-9a6b-%012d", i)) }

// managed returns an entry of managedFields; real pods have several.
func managed(manager, subresource string) metav1.ManagedFieldsEntry {
	at := metav1.NewTime(time.Unix(1_700_000_000, 0))
	return metav1.ManagedFieldsEntry{
		Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, Subresource: subresource, Time: &at, FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:annotations":{".":{}},"f:labels":{".":{},"f:app":{}}},"f:status":{` +
			strings.Repeat(`"f:conditions":{"k:{\"type\":\"Ready\"}":{".":{},"f:status":{}}},`, 8) + `"f:podIP":{}}}`),
	}
}

// namespace returns namespace i. Its team is the peer of some policies.
func (c *cluster) namespace(i int) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: namespaceName(i), UID: types.UID("uid-" + namespaceName(i)),
		Labels: map[string]string{"kubernetes.io/metadata.name": namespaceName(i), "team": "t-" + strconv.Itoa(i%teams)},
	}}
}

// The single network. All pods are attached to it.
const nadJSON = `{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": {"namespace": "default",
  "name": "net", "uid": "uid-net", "resourceVersion": "1", "creationTimestamp": "2023-11-14T22:13:20Z"}, "spec": {"config": "{\"type\": \"macvlan\"}"}}`

// policyJSON returns policy i. It is JSON, because the API server has no protobuf for custom resources.
func (c *cluster) policyJSON(i int) string {
	return fmt.Sprintf(`{"apiVersion": "k8s.cni.cncf.io/v1beta1", "kind": "MultiNetworkPolicy", "metadata": {"namespace": %q, "name": "p-%d",
  "uid": "uid-p-%[2]d", "resourceVersion": "1", "annotations": {"k8s.v1.cni.cncf.io/policy-for": "default/net"}}, "spec": {
  "podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"], "ingress": [
    {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": %d}]},
    {"from": [{"namespaceSelector": {"matchLabels": {"team": "t-%d"}}, "podSelector": {"matchLabels": {"app": "probe"}}}]}]}}`,
		namespaceName(i%min(selectingNamespaces, c.namespaces)), i, 1000+i%5000, i%teams)
}
