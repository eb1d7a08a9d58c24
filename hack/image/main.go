package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/image/oci"
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

// pack writes the archive of an image. Each argument is FILE:PATH; the image runs the first file. The archive has the form of docker
// save, which containerd and Docker can load.
func pack(out, ref, arch string, args []string) error {
	if ref == "" || len(args) == 0 {
		return errors.New("want -ref NAME:TAG and at least one FILE:PATH")
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		return err
	}
	files := make([]oci.File, 0, len(args))
	for _, arg := range args {
		from, to, ok := strings.Cut(arg, ":")
		if !ok || !path.IsAbs(to) {
			return fmt.Errorf("%q is not FILE:/PATH", arg)
		}
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		files = append(files, oci.File{Path: path.Clean(to), Data: data})
	}
	// A fixed date, so that the image depends on nothing but its files.
	image, err := oci.Build(arch, time.Unix(0, 0), nil, files...)
	if err != nil {
		return fmt.Errorf("pack %s: %w", ref, err)
	}
	return tarball.WriteToFile(out, tag, image)
}
