package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKustomize asks about a kustomize directory with a base, an overlay that changes a policy, and a file of another kind.
func TestKustomize(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"base/kustomization.yaml": "resources: [all.yaml]",
		"base/all.yaml": `
{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}
---
{apiVersion: k8s.cni.cncf.io/v1, kind: NetworkAttachmentDefinition, metadata: {name: net}, spec: {config: '{"type": "macvlan"}'}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, annotations: {k8s.v1.cni.cncf.io/network-status: '[{"name": "net", "interface": "net1", "ips": ["10.0.0.1"]}]'}}, spec: {nodeName: n}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, annotations: {k8s.v1.cni.cncf.io/network-status: '[{"name": "net", "interface": "net1", "ips": ["10.0.0.2"]}]'}}, spec: {nodeName: n}}
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {name: p, annotations: {k8s.v1.cni.cncf.io/policy-for: net}}, spec: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}}
`,
		"over/kustomization.yaml": `{namespace: shop, resources: [../base], patches: [{target: {kind: MultiNetworkPolicy},
  patch: '[{"op": "replace", "path": "/spec/ingress/0/ports/0/port", "value": 81}]'}]}`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct{ dir, from, to, port, want string }{
		{"base", "a", "b", "80", "ALLOWED: 80/tcp from default/a to default/b\n"},
		{"over", "shop/a", "shop/b", "80", "DENIED: 80/tcp from shop/a to shop/b\n"},
		{"over", "shop/a", "shop/b", "81", "ALLOWED: 81/tcp from shop/a to shop/b\n"},
	} {
		var stdout, stderr bytes.Buffer
		code := run([]string{"explain", "-k", filepath.Join(dir, tc.dir), "--from", tc.from, "--to", tc.to, "--port", tc.port}, nil, &stdout, &stderr)
		if code != 0 || !strings.HasPrefix(stdout.String(), tc.want) {
			t.Errorf("%v: exit code %d, %s%s", tc, code, stdout.String(), stderr.String())
		}
	}
	var stdout, stderr bytes.Buffer
	if code := run([]string{"explain", "-k", dir, "--from", "a", "--to", "b", "--port", "80"}, nil, &stdout, &stderr); code != 1 ||
		strings.Count(stderr.String(), "\n") != 1 || !strings.Contains(stderr.String(), "unable to find one of 'kustomization.yaml'") {
		t.Errorf("exit code %d, %q", code, stderr.String())
	}
}
