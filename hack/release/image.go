package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/image/oci"
)

// Names of the image's files in a release.
const (
	imageLayout  = "image"     // a folder
	imageArchive = "image.tar" // the same as a tar
)

// source is the address of the project.
const source = "https://github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables"

// buildImage builds the programs and writes the image with them, as a layout and as an archive. It returns the digest of the image.
func (r *release) buildImage(ctx context.Context) (v1.Hash, error) {
	repository, err := r.repository()
	if err != nil {
		return v1.Hash{}, fmt.Errorf("name of the image: %w", err)
	}
	labels := map[string]string{
		"org.opencontainers.image.title":    program,
		"org.opencontainers.image.version":  r.version,
		"org.opencontainers.image.source":   source,
		"org.opencontainers.image.licenses": license,
		"org.opencontainers.image.created":  r.date.Format(time.RFC3339),
	}
	var images []v1.Image
	for _, arch := range architectures {
		if err := r.buildBinary(ctx, arch); err != nil {
			return v1.Hash{}, err
		}
		data, err := os.ReadFile(r.file(binaryName(arch)))
		if err != nil {
			return v1.Hash{}, err
		}
		image, err := oci.Build(arch, r.date, labels, oci.File{Path: "/" + program, Data: data})
		if err != nil {
			return v1.Hash{}, fmt.Errorf("image for %s: %w", arch, err)
		}
		images = append(images, image)
	}
	index, err := oci.Index(labels, images...)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("index of the images: %w", err)
	}
	if err := oci.Write(r.file(imageLayout), repository, r.version, index); err != nil {
		return v1.Hash{}, fmt.Errorf("layout of the image: %w", err)
	}
	if err := r.archive(imageArchive, r.file(imageLayout)); err != nil {
		return v1.Hash{}, err
	}
	return index.Digest()
}

// pushImage pushes the image of a release to the repository that its layout names, under its version. It returns the name of the
// image with its digest, for signatures.
func pushImage(ctx context.Context, dir string) (string, error) {
	tag, index, err := readImage(dir)
	if err != nil {
		return "", fmt.Errorf("image in %s: %w", dir, err)
	}
	if err := remote.WriteIndex(tag, index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return "", fmt.Errorf("push %s: %w", tag, err)
	}
	digest, err := index.Digest()
	if err != nil {
		return "", err
	}
	return tag.Context().Digest(digest.String()).String(), nil
}

// readImage returns the image of a release, and its name with the version.
func readImage(dir string) (name.Tag, v1.ImageIndex, error) {
	all, err := layout.ImageIndexFromPath(dir + "/" + imageLayout)
	if err != nil {
		return name.Tag{}, nil, err
	}
	manifest, err := all.IndexManifest()
	if err != nil {
		return name.Tag{}, nil, err
	}
	for _, d := range manifest.Manifests {
		if tag, err := name.NewTag(d.Annotations[oci.NameAnnotation], name.StrictValidation); err == nil {
			index, err := all.ImageIndex(d.Digest)
			return tag, index, err
		}
	}
	return name.Tag{}, nil, fmt.Errorf("no image with a tag")
}
