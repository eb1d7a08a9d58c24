package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// contents returns the names in a tar and the content of the regular files.
func contents(t *testing.T, data []byte) map[string]string {
	t.Helper()
	all := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
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
	var images [2][]byte
	for i := range images {
		if err := pack(out, "example.test/agent:1", "arm64", []string{agent + ":/agent", conf + ":/etc/agent/conf"}); err != nil {
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

	image := contents(t, images[0])
	var index []manifest
	var c config
	if err := json.Unmarshal([]byte(image["manifest.json"]), &index); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(image[index[0].Config]), &c); err != nil {
		t.Fatal(err)
	}
	layer := image[index[0].Layers[0]]
	want := map[string]string{"agent": "binary", "etc/": "", "etc/agent/": "", "etc/agent/conf": "text"}
	if diff := cmp.Diff(want, contents(t, []byte(layer))); diff != "" {
		t.Errorf("layer (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/agent"}, c.Config.Entrypoint); diff != "" {
		t.Errorf("entry point (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"sha256:" + digest([]byte(layer))}, c.RootFS.DiffIDs); diff != "" {
		t.Errorf("layers (-want +got):\n%s", diff)
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
