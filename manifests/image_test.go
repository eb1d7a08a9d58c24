package manifests

import (
	"bytes"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// foreignImages are the names of images that other implementations of MultiNetworkPolicy publish.
var foreignImages = []string{"multi-networkpolicy-nftables", "multi-networkpolicy-iptables", "multi-networkpolicy-tc"}

// agentContainer returns the agent's container in the base manifests.
func agentContainer(t *testing.T) corev1.Container {
	t.Helper()
	for _, o := range read(t, "base") {
		if o.name() == daemonSet {
			var d appsv1.DaemonSet
			convert(t, o, &d)
			return d.Spec.Template.Spec.Containers[0]
		}
	}
	t.Fatal("the base has no DaemonSet")
	return corev1.Container{}
}

// TestImage checks that the image has a version and is not the image of another implementation. Only the DaemonSet names the
// version.
func TestImage(t *testing.T) {
	repository, tag, _ := strings.Cut(agentContainer(t).Image, ":")
	if !strings.HasPrefix(tag, "v") {
		t.Errorf("tag %q is not a version", tag)
	}
	if slices.Contains(foreignImages, path.Base(repository)) {
		t.Errorf("%s is the image of another implementation", repository)
	}
	if files := filesWith(t, "..", repository+":"); !slices.Equal(files, []string{"../manifests/base/daemonset.yaml"}) {
		t.Errorf("a version of %s is in %q", repository, files)
	}
	for _, file := range filesWith(t, ".", "latest") {
		if filepath.Ext(file) == ".yaml" {
			t.Errorf("%s has the word latest", file)
		}
	}
}

// filesWith returns the files below a directory that contain a text, without build results and Git's own files.
func filesWith(t *testing.T, dir, text string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "bin"):
			return filepath.SkipDir
		case !entry.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(file)
		if bytes.Contains(data, []byte(text)) {
			files = append(files, file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
