package main

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/image/oci"
)

// TestPush pushes an image of two architectures to a registry, and pulls it by the digest that pushImage returns.
func TestPush(t *testing.T) {
	server := httptest.NewServer(registry.New())
	defer server.Close()
	repository := strings.TrimPrefix(server.URL, "http://") + "/group/agent"
	var images []v1.Image
	for _, arch := range architectures {
		image, err := oci.Build(arch, time.Unix(1, 0), nil, oci.File{Path: "/agent", Data: []byte(arch)})
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, image)
	}
	index, err := oci.Index(map[string]string{"key": "value"}, images...)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := oci.Write(dir+"/"+imageLayout, repository, testVersion, index); err != nil {
		t.Fatal(err)
	}
	pushed, err := pushImage(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{pushed, repository + ":" + testVersion} {
		parsed, err := name.ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		pulled, err := remote.Index(parsed)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Index(pulled); err != nil {
			t.Error(err)
		}
		if m, err := pulled.IndexManifest(); err != nil || len(m.Manifests) != 2 || m.Annotations["key"] != "value" {
			t.Errorf("%s is %+v, %v", ref, m, err)
		}
	}
}
