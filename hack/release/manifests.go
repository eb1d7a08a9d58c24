package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"sigs.k8s.io/kustomize/api/resmap"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/kustomize"
)

// installations are the manifests to install from an address, by their components: one file for each distribution whose runtime has
// its socket elsewhere.
var installations = map[string][]string{
	"install.yaml": nil, "install-crio.yaml": {"crio"}, "install-k0s.yaml": {"k0s"}, "install-k3s.yaml": {"k3s"},
	"install-microk8s.yaml": {"microk8s"}, "install-openshift.yaml": {"openshift"},
}

// render returns the objects of the manifests with components, and with further fields of the kustomization.
func (r *release) render(components []string, more map[string]any) (resmap.ResMap, error) {
	return kustomize.Run(filepath.Join(r.root, "manifests"), components, more)
}

// repository returns the repository of the image, which only the DaemonSet names.
func (r *release) repository() (string, error) {
	objects, err := r.render(nil, nil)
	if err != nil {
		return "", err
	}
	for _, o := range objects.Resources() {
		if o.GetKind() != "DaemonSet" {
			continue
		}
		image, err := o.GetString("spec.template.spec.containers.[name=agent].image")
		if err != nil {
			return "", err
		}
		repository, _, ok := strings.Cut(path.Base(image), ":")
		if !ok {
			return "", fmt.Errorf("image %q has no tag", image)
		}
		return path.Join(path.Dir(image), repository), nil
	}
	return "", fmt.Errorf("no DaemonSet in manifests")
}

// writeManifests writes the manifests with the image of the release, by its version and its digest. A node that pulls the image checks
// the digest; the version is for people.
func (r *release) writeManifests(digest v1.Hash) error {
	repository, err := r.repository()
	if err != nil {
		return err
	}
	images := []map[string]string{{"name": repository, "newTag": r.version, "digest": digest.String()}}
	for name, components := range installations {
		objects, err := r.render(components, map[string]any{"images": images})
		if err != nil {
			return err
		}
		data, err := objects.AsYaml()
		if err != nil {
			return err
		}
		header := fmt.Sprintf("# %s %s, see %s\n", program, r.version, source)
		if err := os.WriteFile(r.file(name), append([]byte(header), data...), 0o644); err != nil {
			return err
		}
	}
	return nil
}
