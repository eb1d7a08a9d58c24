package informers

import (
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
	f, err := FromFiles(dir)
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
	if one, err := FromFiles(filepath.Join(dir, "sub", "pods.yaml")); err != nil || len(one.Pods()) != 2 {
		t.Errorf("the file by itself: %v", err)
	}
}

func TestManifestErrors(t *testing.T) {
	for _, tc := range []struct{ name, data, want string }{
		{"unknown kind", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\napiVersion: apps/v1\nkind: Deployment\n",
			`f.yaml, document 2: kind "Deployment" of "apps/v1" is none of Pod, Namespace,`},
		{"kind of another version", "apiVersion: k8s.cni.cncf.io/v1\nkind: MultiNetworkPolicy\n", "f.yaml, document 1: kind"},
		{"no kind", "metadata: {name: a}\n", `f.yaml, document 1: kind ""`},
		{"no name", "apiVersion: v1\nkind: Pod\n", "f.yaml, document 1: a Pod without a name"},
		{"no YAML", "apiVersion: v1\nkind: [\n", "f.yaml, document 1: "},
		{"not an object", "just text\n", "f.yaml, document 1: "},
		{"wrong type", "apiVersion: v1\nkind: Pod\nmetadata: {name: [a]}\n", "f.yaml, document 1: "},
		{"in a list", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret}\n",
			`f.yaml, document 1, item 1: kind "Secret"`},
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
	if _, err := FromFiles("/nonexistent/dir"); err == nil {
		t.Error("no error for a path that is not there")
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
