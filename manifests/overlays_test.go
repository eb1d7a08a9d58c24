package manifests

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// patches are all changes of the overlays to the base, with reasons.
var patches = map[string]string{
	"crio DaemonSet multi-networkpolicy-nftables: test /spec/template/spec/containers/0/args/1: --container-runtime-endpoint=unix:///run/containerd/containerd.sock": "that it is the right one",
	"crio DaemonSet multi-networkpolicy-nftables: replace /spec/template/spec/containers/0/args/1: --container-runtime-endpoint=unix:///run/crio/crio.sock":          "CRI-O's socket",
	"crio DaemonSet multi-networkpolicy-nftables: replace /spec/template/spec/containers/0/volumeMounts/0/mountPath: /run/crio":                                      "its folder in place of containerd's",
	"crio DaemonSet multi-networkpolicy-nftables: replace /spec/template/spec/volumes/0/hostPath/path: /run/crio":                                                    "its folder in place of containerd's",

	"node-taint DaemonSet multi-networkpolicy-nftables: add /spec/template/spec/containers/0/args/-: --remove-node-taint": "what the overlay is for",

	"prometheus DaemonSet multi-networkpolicy-nftables: add /spec/template/spec/containers/0/args/-: --metrics-bind-address=$(NODE_IP):10349":                               "what the overlay is for",
	"prometheus DaemonSet multi-networkpolicy-nftables: add /spec/template/spec/containers/0/env/-: map[name:NODE_IP valueFrom:map[fieldRef:map[fieldPath:status.hostIP]]]": "the address to bind to",
	"prometheus DaemonSet multi-networkpolicy-nftables: add /spec/template/spec/containers/0/ports: [map[containerPort:10349 name:metrics]]":                                "the PodMonitor's target; on the host's network it opens nothing",
}

// extras are all additions of the overlays to the base, with reasons.
var extras = map[string]string{
	role + "-node-taint":              "below",
	role + "-node-taint: get nodes":   "its own node's taints; RBAC cannot say which node is its own",
	role + "-node-taint: patch nodes": "to remove the one taint",
	binding + "-node-taint":           "below",
	binding + "-node-taint .roleRef.apiGroup: rbac.authorization.k8s.io":                                  "the role above",
	binding + "-node-taint .roleRef.kind: ClusterRole":                                                    "the role above",
	binding + "-node-taint .roleRef.name: multi-networkpolicy-nftables-node-taint":                        "the role above",
	binding + "-node-taint .subjects[multi-networkpolicy-nftables].kind: ServiceAccount":                  "the agent and nobody else",
	binding + "-node-taint .subjects[multi-networkpolicy-nftables].namespace: multi-networkpolicy-system": "the agent and nobody else",
	"PodMonitor multi-networkpolicy-nftables":                                                             "tells Prometheus where metrics are",
}

// TestOverlays checks that overlays change and add exactly the entries above.
func TestOverlays(t *testing.T) {
	base := grants(t, read(t, "base"))
	foundPatches, foundExtras := map[string]bool{}, map[string]bool{}
	overlays, err := filepath.Glob("overlays/*")
	if err != nil || len(overlays) == 0 {
		t.Fatalf("no overlays: %v", err)
	}
	for _, dir := range overlays {
		for _, p := range readKustomization(t, dir).Patches {
			var operations []struct {
				Op    string `json:"op"`
				Path  string `json:"path"`
				Value any    `json:"value"`
			}
			if err := yaml.UnmarshalStrict([]byte(p.Patch), &operations); err != nil {
				t.Fatalf("%s: %v", dir, err)
			}
			for _, o := range operations {
				foundPatches[fmt.Sprintf("%s %s %s: %s %s: %v", filepath.Base(dir), p.Target.Kind, p.Target.Name, o.Op, o.Path, o.Value)] = true
			}
		}
		for _, g := range grants(t, read(t, dir)) {
			if !slices.Contains(base, g) {
				foundExtras[g] = true
			}
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(patches)), slices.Sorted(maps.Keys(foundPatches))); diff != "" {
		t.Errorf("patches (-allowed +found):\n%s", diff)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(extras)), slices.Sorted(maps.Keys(foundExtras))); diff != "" {
		t.Errorf("objects (-allowed +found):\n%s", diff)
	}
}
