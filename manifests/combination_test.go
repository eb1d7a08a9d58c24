package manifests

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/kustomize"
)

// changes has, for each component, every line that it adds to the base (+) or takes away (-), with its reason. A change that is
// only in the manifests or only here fails the test.
var changes = map[string]map[string]string{
	"crio":     runtimeChanges("crio", "/run/crio"),
	"k3s":      runtimeChanges("k3s", "/run/k3s/containerd"),
	"k0s":      runtimeChanges("k0s", "/run/k0s"),
	"microk8s": runtimeChanges("microk8s", "/var/snap/microk8s/common/run"),
	"selinux":  selinuxChanges,
	"openshift": union(runtimeChanges("crio", "/run/crio"), selinuxChanges, map[string]string{
		"+ Namespace multi-networkpolicy-system.metadata.labels.security.openshift.io/scc.podSecurityLabelSync: false": "the base sets the levels",
		"+ Namespace multi-networkpolicy-system.metadata.annotations.openshift.io/node-selector: ":                     "every node",

		"+ " + scc: "what OpenShift lets the pod have; it grants nothing that the pod does not ask for",
		"+ " + scc + " .allowHostDirVolumePlugin: true":    "the folders that the pod mounts",
		"+ " + scc + " .allowHostNetwork: true":            "as in the pod",
		"+ " + scc + " .allowHostPorts: true":              "the port of the metrics, with the component prometheus",
		"+ " + scc + " .allowHostIPC: false":               "takes away",
		"+ " + scc + " .allowHostPID: false":               "takes away",
		"+ " + scc + " .allowPrivilegeEscalation: false":   "takes away",
		"+ " + scc + " .allowPrivilegedContainer: false":   "takes away",
		"+ " + scc + " .allowedCapabilities: NET_ADMIN":    "as in the pod",
		"+ " + scc + " .allowedCapabilities: SYS_ADMIN":    "as in the pod",
		"+ " + scc + " .requiredDropCapabilities: ALL":     "takes away",
		"+ " + scc + " .priority: 0":                       "the default",
		"+ " + scc + " .readOnlyRootFilesystem: true":      "takes away",
		"+ " + scc + " .seccompProfiles: runtime/default":  "takes away",
		"+ " + scc + " .runAsUser.type: RunAsAny":          "the sockets of the runtime belong to root",
		"+ " + scc + " .seLinuxContext.type: RunAsAny":     "the pod asks for spc_t",
		"+ " + scc + " .fsGroup.type: RunAsAny":            "no volume of the pod has a group",
		"+ " + scc + " .supplementalGroups.type: RunAsAny": "the pod asks for none",
		"+ " + scc + " .volumes: hostPath":                 "as in the pod",
		"+ " + scc + " .volumes: projected":                "the token of the service account",
		"+ " + scc + " .volumes: configMap":                "files of custom rules",

		"+ Role multi-networkpolicy-nftables-scc":                                                                                      "below",
		"+ Role multi-networkpolicy-nftables-scc .metadata.namespace: multi-networkpolicy-system":                                      "in no other namespace",
		"+ Role multi-networkpolicy-nftables-scc: use securitycontextconstraints.security.openshift.io":                                "the object above",
		"+ Role multi-networkpolicy-nftables-scc: only .names: multi-networkpolicy-nftables":                                           "and no other",
		"+ RoleBinding multi-networkpolicy-nftables-scc":                                                                               "below",
		"+ RoleBinding multi-networkpolicy-nftables-scc .metadata.namespace: multi-networkpolicy-system":                               "in no other namespace",
		"+ RoleBinding multi-networkpolicy-nftables-scc .roleRef.apiGroup: rbac.authorization.k8s.io":                                  "the role above",
		"+ RoleBinding multi-networkpolicy-nftables-scc .roleRef.kind: Role":                                                           "the role above",
		"+ RoleBinding multi-networkpolicy-nftables-scc .roleRef.name: multi-networkpolicy-nftables-scc":                               "the role above",
		"+ RoleBinding multi-networkpolicy-nftables-scc .subjects[multi-networkpolicy-nftables].kind: ServiceAccount":                  "the agent and nobody else",
		"+ RoleBinding multi-networkpolicy-nftables-scc .subjects[multi-networkpolicy-nftables].namespace: multi-networkpolicy-system": "the agent and nobody else",
	}),
	"nri-required": {
		"+ " + container + ".args: --nri-socket=/run/nri/nri.sock":    "a missing socket is an outage",
		"- " + pod + ".volumes[nri].hostPath.type: DirectoryOrCreate": "below",
		"+ " + pod + ".volumes[nri].hostPath.type: Directory":         "a node without NRI gets no agent",
	},
	"revoke-established": {"+ " + container + ".args: --established=revoke": "what the component is for"},
	"node-taint": {
		"+ " + container + ".args: --remove-node-taint":                                                              "what the component is for",
		"+ " + role + "-node-taint":                                                                                  "below",
		"+ " + role + "-node-taint: get nodes":                                                                       "its own node's taints; RBAC cannot say which node is its own",
		"+ " + role + "-node-taint: patch nodes":                                                                     "to remove the one taint",
		"+ " + binding + "-node-taint":                                                                               "below",
		"+ " + binding + "-node-taint .roleRef.apiGroup: rbac.authorization.k8s.io":                                  "the role above",
		"+ " + binding + "-node-taint .roleRef.kind: ClusterRole":                                                    "the role above",
		"+ " + binding + "-node-taint .roleRef.name: multi-networkpolicy-nftables-node-taint":                        "the role above",
		"+ " + binding + "-node-taint .subjects[multi-networkpolicy-nftables].kind: ServiceAccount":                  "the agent and nobody else",
		"+ " + binding + "-node-taint .subjects[multi-networkpolicy-nftables].namespace: multi-networkpolicy-system": "the agent and nobody else",
	},
	"prometheus": {
		"+ " + container + ".args: --metrics-bind-address=$(NODE_IP):10349":            "what the component is for",
		"+ " + container + ".env[NODE_IP].valueFrom.fieldRef.fieldPath: status.hostIP": "the address to bind to",
		"+ " + container + ".ports[metrics].containerPort: 10349":                      "the target of the PodMonitor; on the network of the host it opens nothing",
		"+ " + container + ".ports[metrics].protocol: TCP":                             "as above",
		"+ PodMonitor multi-networkpolicy-nftables":                                    "tells Prometheus where metrics are",
		"+ PrometheusRule multi-networkpolicy-nftables":                                "alerts; see TestRules",
		"+ ConfigMap multi-networkpolicy-nftables-dashboard":                           "a dashboard for Grafana",
	},
	"protect-network-status": {
		"+ ValidatingAdmissionPolicy multi-networkpolicy-protect-network-status":        "see TestProtectNetworkStatus",
		"+ ValidatingAdmissionPolicyBinding multi-networkpolicy-protect-network-status": "see TestProtectNetworkStatus",
	},
}

const scc = "SecurityContextConstraints multi-networkpolicy-nftables"

var selinuxChanges = map[string]string{
	"+ " + pod + ".securityContext.seLinuxOptions.type: spc_t": "the type container_t may not connect to the sockets of the runtime",
}

// runtimeChanges replaces the folder of containerd's socket by another folder.
func runtimeChanges(name, path string) map[string]string {
	volume, mount := pod+".volumes[runtime", container+".volumeMounts[runtime"
	return map[string]string{
		"- " + mount + "].mountPath: /run/containerd":                     "another runtime has the pods",
		"- " + mount + "].readOnly: true":                                 "as above",
		"- " + volume + "].hostPath.path: /run/containerd":                "as above",
		"- " + volume + "].hostPath.type: Directory":                      "as above",
		"+ " + mount + "-" + name + "].mountPath: " + path:                "the socket of CRI; the folder, as the socket is made anew",
		"+ " + mount + "-" + name + "].readOnly: true":                    "takes away",
		"+ " + volume + "-" + name + "].hostPath.path: " + path:           "as mounted",
		"+ " + volume + "-" + name + "].hostPath.type: DirectoryOrCreate": "nodes of a cluster may have different runtimes",
	}
}

func union(all ...map[string]string) map[string]string {
	sum := map[string]string{}
	for _, m := range all {
		maps.Copy(sum, m)
	}
	return sum
}

// lines returns the grants of the objects, and further lines for all fields of the container and the namespace that components may
// change.
func lines(t *testing.T, objects []object) []string {
	t.Helper()
	found := map[string]bool{}
	for _, o := range objects {
		switch o["kind"] {
		case "Namespace":
			flatten(o.name(), without(o, "apiVersion", "kind", "metadata.name"), found)
		case "DaemonSet":
			spec := o["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
			for _, c := range spec["containers"].([]any) {
				c := c.(map[string]any)
				fields := map[string]any{"args": c["args"], "env": c["env"], "image": c["image"], "resources": c["resources"]}
				if ports, ok := c["ports"]; ok {
					fields["ports"] = ports
				}
				flatten(fmt.Sprintf("%s.containers[%s]", pod, c["name"]), fields, found)
			}
		case "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding":
			found[o.name()] = true
		}
	}
	objects = slices.DeleteFunc(slices.Clone(objects), func(o object) bool { return strings.HasPrefix(o["kind"].(string), "Validating") })
	for _, g := range grants(t, objects) {
		found[g] = true
	}
	return slices.Sorted(maps.Keys(found))
}

// TestComponents checks that each component changes the base exactly as listed above.
func TestComponents(t *testing.T) {
	names, err := kustomize.Components(".")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(changes)), names); diff != "" {
		t.Errorf("components (-listed +found):\n%s", diff)
	}
	base := lines(t, build(t))
	for _, name := range names {
		with := lines(t, build(t, name))
		var found []string
		for _, line := range base {
			if !slices.Contains(with, line) {
				found = append(found, "- "+line)
			}
		}
		for _, line := range with {
			if !slices.Contains(base, line) {
				found = append(found, "+ "+line)
			}
		}
		slices.Sort(found)
		if diff := cmp.Diff(slices.Sorted(maps.Keys(changes[name])), found); diff != "" {
			t.Errorf("%s (-allowed +found):\n%s", name, diff)
		}
	}
}

// TestCombinations checks that two components together have exactly the changes of both, in either order. So no pair has a
// privilege that neither of the two has.
func TestCombinations(t *testing.T) {
	names, err := kustomize.Components(".")
	if err != nil {
		t.Fatal(err)
	}
	base := lines(t, build(t))
	for _, pair := range kustomize.Combinations(names) {
		want := map[string]bool{}
		for _, line := range base {
			want[line] = true
		}
		for _, name := range pair {
			for change := range changes[name] {
				if line, ok := strings.CutPrefix(change, "+ "); ok {
					want[line] = true
				} else {
					delete(want, strings.TrimPrefix(change, "- "))
				}
			}
		}
		if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), lines(t, build(t, pair...))); diff != "" {
			t.Errorf("%q (-want +found):\n%s", pair, diff)
		}
	}
}
