package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// contents returns the names in the only layer of an image, and the content of the regular files.
func contents(t *testing.T, image v1.Image) map[string]string {
	t.Helper()
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	data, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for r := tar.NewReader(data); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Mode != 0o755 {
			t.Errorf("%s has mode %o", h.Name, h.Mode)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all[h.Name] = string(b)
	}
}

func TestPack(t *testing.T) {
	dir := t.TempDir()
	agent, conf, out := filepath.Join(dir, "a"), filepath.Join(dir, "c"), filepath.Join(dir, "image.tar")
	for name, text := range map[string]string{agent: "binary", conf: "text"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const ref = "example.test/agent:1"
	var images [2][]byte
	for i := range images {
		if err := pack(out, ref, "arm64", []string{agent + ":/agent", conf + ":/etc/agent/conf"}); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		images[i] = data
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Error("the same files made two images")
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	image, err := tarball.ImageFromPath(out, &tag)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(image); err != nil {
		t.Error(err)
	}
	want := map[string]string{"agent": "binary", "etc/": "", "etc/agent/": "", "etc/agent/conf": "text"}
	if diff := cmp.Diff(want, contents(t, image)); diff != "" {
		t.Errorf("layer (-want +got):\n%s", diff)
	}
	c, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/agent"}, c.Config.Entrypoint); diff != "" {
		t.Errorf("entry point (-want +got):\n%s", diff)
	}
	if c.Architecture != "arm64" || c.OS != "linux" {
		t.Errorf("for %s/%s", c.OS, c.Architecture)
	}
}

func TestPackRefuses(t *testing.T) {
	for name, args := range map[string][]string{"no file": nil, "no path": {"file"}, "relative path": {"file:path"}} {
		if err := pack(filepath.Join(t.TempDir(), "out"), "example.test/agent:1", "amd64", args); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
