package informers

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	corev1 "k8s.io/api/core/v1"
)

const twoPods = `# a comment before the first document
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: ns}
spec:
  containers:
    - name: c
      ports: [{name: http, containerPort: 80}, {name: dns, containerPort: 53, protocol: UDP}]
---
apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: Pod
    metadata: {name: b}
  - apiVersion: v1
    kind: Namespace
    metadata: {name: ns, labels: {team: x}}
`

func TestManifests(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{"sub/pods.yaml": twoPods, "README.md": "not a manifest: ["} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := filesIn(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	pods := f.Pods()
	if len(pods) != 2 || keyOf(pods[0]).String() != "default/b" || keyOf(pods[1]).String() != "ns/a" {
		t.Fatalf("got pods %v", pods)
	}
	if pods[0].UID == "" || pods[0].UID == pods[1].UID {
		t.Errorf("UIDs %q, %q", pods[0].UID, pods[1].UID)
	}
	if p := pods[1].Spec.Containers[0].Ports; p[0].Protocol != corev1.ProtocolTCP || p[1].Protocol != corev1.ProtocolUDP {
		t.Errorf("protocols %v", p)
	}
	namespaces, _ := f.namespaces.all()
	if len(namespaces) != 2 {
		t.Fatalf("namespaces %v: the one used but not in the files must be there", namespaces)
	}
	for _, ns := range namespaces {
		if ns.GetLabels()[corev1.LabelMetadataName] != ns.GetName() {
			t.Errorf("labels of %s: %v", ns.GetName(), ns.GetLabels())
		}
	}
	if namespaces[1].GetLabels()["team"] != "x" {
		t.Errorf("labels of ns: %v", namespaces[1].GetLabels())
	}
	if one, err := filesIn(t, filepath.Join(dir, "sub", "pods.yaml")); err != nil || len(one.Pods()) != 2 {
		t.Errorf("the file by itself: %v", err)
	}
}

// filesIn returns Files with the manifests in files and directories.
func filesIn(t *testing.T, paths ...string) (*Files, error) {
	t.Helper()
	m, err := Input{Paths: paths}.Read(t.Context())
	if err != nil {
		return nil, err
	}
	f := NewFiles()
	return f, f.Load(m)
}

// TestMergedKeys: a key may override a key that "<<" merges into its map.
func TestMergedKeys(t *testing.T) {
	const pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  annotations: &b {x: z, app: w}\n  labels:\n    <<: *b\n    app: web\n"
	path := filepath.Join(t.TempDir(), "pod.yaml")
	if err := os.WriteFile(path, []byte(pod), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := filesIn(t, path)
	if err != nil {
		t.Fatal(err)
	}
	if pods := f.Pods(); len(pods) != 1 || !maps.Equal(pods[0].Labels, map[string]string{"x": "z", "app": "web"}) {
		t.Errorf("got pods %v", pods)
	}
}

func TestManifestErrors(t *testing.T) {
	for _, tc := range []struct{ name, data, want string }{
		{"kind of another version", "apiVersion: k8s.cni.cncf.io/v1\nkind: MultiNetworkPolicy\n",
			"f.yaml, document 1: unknown kind MultiNetworkPolicy of apiVersion k8s.cni.cncf.io/v1, did you mean MultiNetworkPolicy of k8s.cni.cncf.io/v1beta1?"},
		{"plural", "apiVersion: v1\nkind: Pods\n", "unknown kind Pods of apiVersion v1, did you mean Pod of v1?"},
		{"kind of the group", "apiVersion: k8s.cni.cncf.io/v1beta1\nkind: NetPolicy\n", "must be MultiNetworkPolicy or NetworkAttachmentDefinition"},
		{"no kind", "metadata: {name: a}\n", `f.yaml, document 1: an object without a kind`},
		{"no apiVersion", "kind: Pod\n", `f.yaml, document 1: a Pod without an apiVersion`},
		{"no name", "apiVersion: v1\nkind: Pod\n", "f.yaml, document 1: a Pod without a name"},
		{"no YAML", "apiVersion: v1\nkind: [\n", "f.yaml, document 1: invalid YAML: line "},
		{"key twice", "apiVersion: k8s.cni.cncf.io/v1beta1\nkind: MultiNetworkPolicy\nspec:\n  ingress: []\n  ingress: [{}]\n",
			`f.yaml, document 1: invalid YAML: line 5: key "ingress" is also in line 4`},
		{"key twice in JSON", `{"kind": "Pod", "kind": "Pod"}`,
			`f.yaml, document 1: invalid YAML: line 1: key "kind" is also in line 1`},
		{"not an object", "just text\n", "f.yaml, document 1: must be a map, not a string"},
		{"wrong type", "apiVersion: v1\nkind: Pod\nmetadata: {name: [a]}\n", "f.yaml, document 1: Pod: field metadata.name must be a string, not a list"},
		{"wrong type in a pod", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: 1}\n",
			"f.yaml, document 1: Pod a: field spec.containers must be a list, not a number"},
		{"wrong annotations", "apiVersion: k8s.cni.cncf.io/v1beta1\nkind: MultiNetworkPolicy\nmetadata: {name: a, annotations: {a: 1}}\n",
			"MultiNetworkPolicy a: field metadata.annotations must be a string, not a number"},
		{"unknown field", "{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {name: p, namespace: shop}, spec: {ingress: [{prots: []}]}}",
			"f.yaml, document 1: MultiNetworkPolicy shop/p: unknown field spec.ingress[0].prots, did you mean ports?"},
		{"unknown fields", "{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {name: p, lables: {}}, spec: {zzzzzz: 1, podselector: {}}}",
			"MultiNetworkPolicy p: unknown field metadata.lables, did you mean labels?; spec.podselector, did you mean podSelector?; spec.zzzzzz"},
		{"unknown field of a pod", "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{prots: []}]}}",
			"Pod p: unknown field spec.containers[0].prots, did you mean ports?"},
		{"unknown field of a policy from a cluster",
			"{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {name: p, resourceVersion: '1'}, spec: {egres: []}}",
			"unknown field spec.egres, did you mean egress?"},
		{"in a list", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod}\n", `f.yaml, document 1, item 1: a Pod without a name`},
		{"twice", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n",
			"f.yaml, document 2: default/a is there already (f.yaml, document 1)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := ReadFS(fstest.MapFS{"f.yaml": {Data: []byte(tc.data)}})
			if err == nil {
				err = NewFiles().Load(m)
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	if _, err := filesIn(t, "/nonexistent/dir"); err == nil {
		t.Error("no error for a path that is not there")
	}
}

// TestSkippedObjects checks the objects that are no error: other kinds, and the fields of pods from a newer API server.
func TestSkippedObjects(t *testing.T) {
	m, err := ReadFS(fstest.MapFS{
		"other.yaml": {Data: []byte("{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {prots: 1}}\n---\n# nothing\n---\n" +
			"{apiVersion: v1, kind: Secret}\n---\n{apiVersion: other.io/v1, kind: Namespace}\n")},
		"kustomization.yaml": {Data: []byte("resources: [other.yaml]")},
		"pod.json": {Data: []byte(`{"apiVersion": "v1", "kind": "PodList", "items": [
			{"metadata": {"name": "p", "resourceVersion": "7", "managedFields": [{"fieldsV1": {"f:x": {}}}]}, "spec": {"fromTheFuture": 1}},
			{"metadata": {"name": "q"}, "spec": {"containers": [{"resources": {"limits": {"cpu": "100m"}}, "livenessProbe": {"httpGet": {"port": "http"}}}]}}]}`)},
	})
	if err != nil || len(m) != 2 || m[0].object.GetName() != "p" || m[1].object.GetName() != "q" {
		t.Errorf("%d objects, %v", len(m), err)
	}
}

// Any file is read or refused with an error.
func FuzzManifests(f *testing.F) {
	f.Add([]byte(twoPods))
	f.Add([]byte("apiVersion: v1\nkind: List\nitems: [null, 1]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ReadFS(fstest.MapFS{"f.yaml": {Data: data}})
		if err == nil {
			NewFiles().Load(m) //nolint:errcheck // it may be refused
		}
	})
}
