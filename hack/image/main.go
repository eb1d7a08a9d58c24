package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path"
	"runtime"
	"strings"
	"time"
)

func main() {
	ref := flag.String("ref", "", "name of the image, with its tag")
	out := flag.String("o", "image.tar", "file to write")
	arch := flag.String("arch", runtime.GOARCH, "architecture that the files are for")
	flag.Parse()
	if err := pack(*out, *ref, *arch, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// file is a regular file in a tar.
// name is the path in the image, without a slash in front
type file struct {
	name string
	mode int64
	data []byte
}

// pack writes the archive of an image. Each argument is FILE:PATH; the image runs the first file.
// The image has a single layer with these files and nothing else: no shell and no libraries. The archive has the form
// of docker save, which containerd and Docker can load.
func pack(out, ref, arch string, args []string) error {
	if ref == "" || len(args) == 0 {
		return errors.New("want -ref NAME:TAG and at least one FILE:PATH")
	}
	files := make([]file, 0, len(args))
	for _, arg := range args {
		from, to, ok := strings.Cut(arg, ":")
		if !ok || !path.IsAbs(to) {
			return fmt.Errorf("%q is not FILE:/PATH", arg)
		}
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		files = append(files, file{name: strings.TrimPrefix(path.Clean(to), "/"), mode: 0o755, data: data})
	}
	content, err := archive(ref, arch, files)
	if err != nil {
		return fmt.Errorf("pack %s: %w", ref, err)
	}
	return os.WriteFile(out, content, 0o644)
}

// config is the part of an image's configuration that a runtime needs.
// Runtimes read the entry point and the digests of the layers, which they compare with the layers.
type config struct {
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Created      time.Time `json:"created"`
	Config       struct {
		Entrypoint []string
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// manifest is the single entry of manifest.json. It names the other files of the archive.
type manifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// archive returns the image as a tar: the configuration, the layer and manifest.json.
// The same input gives the same bytes:
//
//	<digest>.json   configuration
//	<digest>.tar    layer with the files
//	manifest.json   names of both, and the tag
func archive(ref, arch string, files []file) ([]byte, error) {
	layer, err := tarball(files)
	if err != nil {
		return nil, err
	}
	// A fixed time, so that the image depends on nothing but its files.
	c := config{Architecture: arch, OS: "linux", Created: time.Unix(0, 0).UTC()}
	c.Config.Entrypoint = []string{"/" + files[0].name}
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", []string{"sha256:" + digest(layer)}
	conf, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	m := manifest{Config: digest(conf) + ".json", RepoTags: []string{ref}, Layers: []string{digest(layer) + ".tar"}}
	index, err := json.Marshal([]manifest{m})
	if err != nil {
		return nil, err
	}
	return tarball([]file{
		{m.Config, 0o644, conf},
		{m.Layers[0], 0o644, layer},
		{"manifest.json", 0o644, index},
	})
}

// digest returns the SHA-256 of the data in hexadecimal digits.
func digest(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data)) }

// tarball returns a tar with the files and their folders. All have the same time, so that equal files make equal tars.
func tarball(files []file) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	epoch, seen := time.Unix(0, 0), map[string]bool{}
	for _, f := range files {
		// Each folder on the way to the file comes before the file, and only once.
		for i, c := range f.name {
			if dir := f.name[:i]; c == '/' && !seen[dir] {
				seen[dir] = true
				h := tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: epoch}
				if err := w.WriteHeader(&h); err != nil {
					return nil, err
				}
			}
		}
		h := tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.data)), ModTime: epoch}
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
