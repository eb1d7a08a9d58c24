package manifests

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

const (
	role      = "ClusterRole multi-networkpolicy-nftables"
	binding   = "ClusterRoleBinding multi-networkpolicy-nftables"
	account   = "ServiceAccount multi-networkpolicy-nftables"
	daemonSet = "DaemonSet multi-networkpolicy-nftables"
	pod       = daemonSet + " pod"
	container = pod + ".containers[agent]"
)

// allowed lists every privilege of the agent, with its reason. A privilege that is only in the manifests or only here fails the
// test.
var allowed = map[string]string{
	"CustomResourceDefinition multi-networkpolicies.k8s.cni.cncf.io": "what users write",
	"Namespace multi-networkpolicy-system":                           "the agent's own, see its comment",
	account:                                                          "the agent's own",
	account + " .metadata.namespace: multi-networkpolicy-system":     "the agent's own",
	role:      "below",
	binding:   "below",
	daemonSet: "below",

	role + ": list pods":        "labels, addresses and ports of local pods and of peers, from an API server that cannot stream lists",
	role + ": watch pods":       "the same, and its changes",
	role + ": list namespaces":  "labels, for namespaceSelector; as above",
	role + ": watch namespaces": "the same, and its changes",
	role + ": list network-attachment-definitions.k8s.cni.cncf.io":  "the plugin type of a network; as above",
	role + ": watch network-attachment-definitions.k8s.cni.cncf.io": "the same, and its changes",
	role + ": list multi-networkpolicies.k8s.cni.cncf.io":           "the policies to enforce; as above",
	role + ": watch multi-networkpolicies.k8s.cni.cncf.io":          "the same, and its changes",
	role + ": create events":                                        "Warning Events on policies, networks and pods; never patched",

	binding + " .roleRef.apiGroup: rbac.authorization.k8s.io":                                  "the role above",
	binding + " .roleRef.kind: ClusterRole":                                                    "the role above",
	binding + " .roleRef.name: multi-networkpolicy-nftables":                                   "the role above",
	binding + " .subjects[multi-networkpolicy-nftables].kind: ServiceAccount":                  "the agent and nobody else",
	binding + " .subjects[multi-networkpolicy-nftables].namespace: multi-networkpolicy-system": "the agent and nobody else",

	pod + ".serviceAccountName: multi-networkpolicy-nftables": "the role above",
	pod + ".nodeSelector.kubernetes.io/os: linux":             "takes away",
	pod + ".hostNetwork: true":                                "it must reach the API server before, and whether or not, pods have networks",

	container + ".securityContext.allowPrivilegeEscalation: false":     "takes away",
	container + ".securityContext.readOnlyRootFilesystem: true":        "takes away",
	container + ".securityContext.seccompProfile.type: RuntimeDefault": "takes away",
	container + ".securityContext.capabilities.drop: ALL":              "takes away",
	container + ".securityContext.capabilities.add: NET_ADMIN":         "nf_tables in pods; see TestCapabilities",
	container + ".securityContext.capabilities.add: SYS_ADMIN":         "setns into pods' network namespaces; see TestCapabilities",

	container + ".volumeMounts[runtime].mountPath: /run/containerd":      "CRI's socket; the folder, as the socket is made anew",
	container + ".volumeMounts[runtime].readOnly: true":                  "takes away",
	container + ".volumeMounts[netns].mountPath: /run/netns":             "the handles of pods' network namespaces",
	container + ".volumeMounts[netns].readOnly: true":                    "takes away",
	container + ".volumeMounts[netns].mountPropagation: HostToContainer": "pods that start later",
	container + ".volumeMounts[nri].mountPath: /run/nri":                 "NRI's socket; the folder, as the socket is made anew",
	container + ".volumeMounts[nri].readOnly: true":                      "takes away",
	pod + ".volumes[nri].hostPath.path: /run/nri":                        "as mounted",
	pod + ".volumes[nri].hostPath.type: DirectoryOrCreate":               "a runtime without NRI has none",
	pod + ".volumes[runtime].hostPath.path: /run/containerd":             "as mounted",
	pod + ".volumes[runtime].hostPath.type: Directory":                   "it is there, or the pod does not start",
	pod + ".volumes[netns].hostPath.path: /run/netns":                    "as mounted",
	pod + ".volumes[netns].hostPath.type: DirectoryOrCreate":             "a node that never had a pod has none",
}

// TestPrivileges checks that `kubectl apply -k manifests` grants exactly the privileges above.
func TestPrivileges(t *testing.T) {
	if diff := cmp.Diff(slices.Sorted(maps.Keys(allowed)), grants(t, read(t, "."))); diff != "" {
		t.Errorf("(-allowed +found):\n%s", diff)
	}
}

// TestGrantsAreFound checks that grants finds each kind of privilege that a change could add to the manifests.
func TestGrantsAreFound(t *testing.T) {
	before := grants(t, read(t, "."))
	for _, tt := range []struct{ object, at, add string }{
		{role, "", `{rules: [{apiGroups: [""], resources: [pods], verbs: [delete]}]}`},
		{role, "", `{rules: [{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}]}`},
		{role, "", `{rules: [{nonResourceURLs: [/metrics], verbs: [get]}]}`},
		{role, "", `{aggregationRule: {clusterRoleSelectors: [{matchLabels: {a: b}}]}}`},
		{binding, "", `{subjects: [{kind: Group, name: "system:authenticated"}]}`},
		{daemonSet, "spec.template.spec", `{hostPID: true}`},
		{daemonSet, "spec.template.spec", `{hostIPC: true}`},
		{daemonSet, "spec.template.spec", `{shareProcessNamespace: true}`},
		{daemonSet, "spec.template.spec", `{securityContext: {runAsUser: 0}}`},
		{daemonSet, "spec.template.spec", `{volumes: [{name: root, hostPath: {path: /}}]}`},
		{daemonSet, "spec.template.spec", `{volumes: [{name: runtime, hostPath: {path: /run}}]}`},
		{daemonSet, "spec.template.spec", `{initContainers: [{name: first, image: x}]}`},
		{daemonSet, "spec.template.spec", `{containers: [{name: other, image: x, securityContext: {privileged: true}}]}`},
		{daemonSet, "spec.template.spec", `{containers: [{name: agent, securityContext: {privileged: true}}]}`},
		{daemonSet, "spec.template.spec", `{containers: [{name: agent, securityContext: {procMount: Unmasked}}]}`},
		{daemonSet, "spec.template.spec", `{containers: [{name: agent, securityContext: {capabilities: {add: [SYS_PTRACE]}}}]}`},
		{daemonSet, "spec.template.spec", `{containers: [{name: agent, volumeMounts: [{name: netns, mountPath: /run/netns, mountPropagation: Bidirectional}]}]}`},
		{daemonSet, "spec.template.metadata", `{annotations: {container.apparmor.security.beta.kubernetes.io/agent: unconfined}}`},
	} {
		objects := read(t, ".")
		i := slices.IndexFunc(objects, func(o object) bool { return o.name() == tt.object })
		var more map[string]any
		if err := yaml.Unmarshal([]byte(tt.add), &more); err != nil {
			t.Fatal(err)
		}
		into := map[string]any(objects[i])
		for _, field := range strings.FieldsFunc(tt.at, func(r rune) bool { return r == '.' }) {
			into = into[field].(map[string]any)
		}
		merge(into, more)
		if slices.Equal(grants(t, objects), before) {
			t.Errorf("%s %s: not seen: %s", tt.object, tt.at, tt.add)
		}
	}
	extra := append(read(t, "."), parse(t, "{apiVersion: v1, kind: Secret, metadata: {name: s}}")...)
	if slices.Equal(grants(t, extra), before) {
		t.Error("another object is not seen")
	}
}

// merge appends to lists and replaces all other values.
func merge(into, more map[string]any) {
	for key, v := range more {
		if list, ok := into[key].([]any); ok {
			into[key] = append(slices.Clone(list), v.([]any)...)
			continue
		}
		into[key] = v
	}
}
