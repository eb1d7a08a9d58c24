package informers

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestInput checks that standard input, URLs and kustomize directories give the same objects as files, and that an object
// without a namespace is in the given namespace.
func TestInput(t *testing.T) {
	const pod = "{apiVersion: v1, kind: Pod, metadata: {name: a}}"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/pod.yaml" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		io.WriteString(w, pod) //nolint:errcheck // the client sees it
	}))
	defer server.Close()
	kustomize := func(dir string) ([]byte, error) {
		if dir != "base" {
			return nil, errors.New("no kustomization")
		}
		return []byte(pod), nil
	}
	for _, tc := range []struct {
		in   Input
		want string // the error; empty: the pod
	}{
		{Input{Paths: []string{"-"}, Stdin: strings.NewReader(pod)}, ""},
		{Input{Paths: []string{server.URL + "/pod.yaml"}}, ""},
		{Input{Kustomizations: []string{"base"}, Kustomize: kustomize}, ""},
		{Input{Kustomizations: []string{"other"}, Kustomize: kustomize}, "read manifests: kustomize other: no kustomization"},
		{Input{Kustomizations: []string{"base"}}, "read manifests: base: this binary has no kustomize: use the kubectl plugin"},
		{Input{Paths: []string{"-"}}, "read manifests: there is no standard input"},
		{Input{Paths: []string{server.URL + "/other.yaml"}}, "/other.yaml: the server answers 404 Not Found"},
		{Input{Paths: []string{"http://127.0.0.1:1/pod.yaml"}}, "read manifests: download http://127.0.0.1:1/pod.yaml: "},
		{Input{Paths: []string{"https://%zz"}}, "read manifests: https://%zz is not a URL"},
		{Input{Paths: []string{"/nonexistent"}}, "read manifests: /nonexistent: no such file or directory"},
	} {
		tc.in.Namespace = "shop"
		m, err := tc.in.Read(t.Context())
		switch {
		case tc.want != "":
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v: %v, want %q", tc.in.Paths, err, tc.want)
			}
		case err != nil || len(m) != 1 || keyOf(m[0].object).String() != "shop/a":
			t.Errorf("%v: %v, %v", tc.in.Paths, m, err)
		}
	}
}
