package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// installations are the manifests to install from an address, by the folder that they are made from.
var installations = map[string]string{"install.yaml": "manifests", "install-crio.yaml": "manifests/overlays/crio"}

// render returns the objects that kustomize makes from a folder of the project.
func (r *release) render(dir string) (resmap.ResMap, error) {
	return krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(r.root, dir))
}

// repository returns the repository of the image, which only the DaemonSet names.
func (r *release) repository() (string, error) {
	objects, err := r.render("manifests")
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
	kustomization, err := yaml.Marshal(map[string]any{
		"resources": []string{"objects.yaml"},
		"images":    []map[string]string{{"name": repository, "newTag": r.version, "digest": digest.String()}},
	})
	if err != nil {
		return err
	}
	for name, dir := range installations {
		objects, err := r.render(dir)
		if err != nil {
			return err
		}
		data, err := objects.AsYaml()
		if err != nil {
			return err
		}
		memory := filesys.MakeFsInMemory()
		for file, content := range map[string][]byte{"objects.yaml": data, "kustomization.yaml": kustomization} {
			if err := memory.WriteFile(file, content); err != nil {
				return err
			}
		}
		if objects, err = krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(memory, "."); err != nil {
			return err
		}
		if data, err = objects.AsYaml(); err != nil {
			return err
		}
		header := fmt.Sprintf("# %s %s, see %s\n", program, r.version, source)
		if err := os.WriteFile(r.file(name), append([]byte(header), data...), 0o644); err != nil {
			return err
		}
	}
	return nil
}
