package oci

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Annotations with which containerd and other programs name an image that they load from a layout.
const (
	NameAnnotation = "io.containerd.image.name"
	tagAnnotation  = "org.opencontainers.image.ref.name"
)

// File is an executable file in an image.
type File struct {
	Path string // absolute
	Data []byte
}

// Build returns an image for Linux with a single layer that holds the files and nothing else: no shell and no libraries. The image
// runs the first file, as root. created is the date of the image and its files.
func Build(arch string, created time.Time, labels map[string]string, files ...File) (v1.Image, error) {
	content, err := layer(files, created)
	if err != nil {
		return nil, err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), l)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", arch, v1.Time{Time: created.UTC()}
	config.Config = v1.Config{Entrypoint: []string{files[0].Path}, Labels: labels}
	// The entry that AppendLayers makes has no date.
	config.History = []v1.History{{Created: config.Created, CreatedBy: "hack/image"}}
	return mutate.ConfigFile(image, config)
}

// layer returns a tar with the files and their folders.
func layer(files []File, created time.Time) ([]byte, error) {
	var out bytes.Buffer
	w, seen := tar.NewWriter(&out), map[string]bool{}
	for _, f := range files {
		name := path.Clean(f.Path)[1:]
		// Each folder on the way to the file comes before the file, and only once.
		for i, c := range name {
			if dir := name[:i]; c == '/' && !seen[dir] {
				seen[dir] = true
				if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: created}); err != nil {
					return nil, err
				}
			}
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(f.Data)), ModTime: created}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.Data); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), w.Close()
}

// Index returns an index of images of the same software for several architectures.
func Index(annotations map[string]string, images ...v1.Image) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, image := range images {
		config, err := image.ConfigFile()
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: config.OS, Architecture: config.Architecture}},
		})
	}
	annotated, ok := mutate.Annotations(index, annotations).(v1.ImageIndex)
	if !ok {
		return nil, fmt.Errorf("annotations of an index made a %T", annotated)
	}
	return annotated, nil
}

// Write writes an OCI layout with the index to a new folder. The layout names the index by its tag, and by its digest. So a node that
// has loaded the layout finds the image under both names, and asks no registry for REPOSITORY@DIGEST.
func Write(dir, repository, tag string, index v1.ImageIndex) error {
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	out, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	byTag := map[string]string{NameAnnotation: repository + ":" + tag, tagAnnotation: tag}
	if err := out.AppendIndex(index, layout.WithAnnotations(byTag)); err != nil {
		return err
	}
	return out.AppendIndex(index, layout.WithAnnotations(map[string]string{NameAnnotation: repository + "@" + digest.String()}))
}

// Archive writes a folder as a tar. Names are in lexical order and all files have the given date, so equal folders make equal archives.
func Archive(w io.Writer, dir string, date time.Time) error {
	out := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || file == dir {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		header := &tar.Header{Typeflag: tar.TypeDir, Name: filepath.ToSlash(name) + "/", Mode: 0o755, ModTime: date}
		if entry.IsDir() {
			return out.WriteHeader(header)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		header = &tar.Header{Typeflag: tar.TypeReg, Name: filepath.ToSlash(name), Mode: 0o644, Size: int64(len(data)), ModTime: date}
		if err := out.WriteHeader(header); err != nil {
			return err
		}
		_, err = out.Write(data)
		return err
	})
	if err != nil {
		return err
	}
	return out.Close()
}
