package main

import (
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/image/oci"
)

// archive writes a folder as a tar, which is compressed if its name says so.
func (r *release) archive(name, dir string) error {
	file, err := os.Create(r.file(name))
	if err != nil {
		return err
	}
	var out io.WriteCloser = file
	if !strings.HasSuffix(name, ".tar") {
		out = gzip.NewWriter(file) // without a date
	}
	err = oci.Archive(out, dir, r.date)
	if out != file {
		err = errors.Join(err, out.Close())
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("archive %s: %w", name, err)
	}
	return nil
}

// writeChecksums writes SHA256SUMS, for sha256sum --check. The layout of the image has none, since its blobs are named by their
// checksums, and the archive has the same content.
func (r *release) writeChecksums() error {
	entries, err := os.ReadDir(r.out)
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		sum, err := checksum(r.file(e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%s  %s\n", sum, e.Name())
	}
	return os.WriteFile(r.file("SHA256SUMS"), []byte(sums.String()), 0o644)
}

// checksum returns the SHA-256 of a file in hexadecimal digits.
func checksum(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}
