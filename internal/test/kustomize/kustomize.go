package kustomize

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// Components returns the names of the components below the folder of the manifests, sorted.
func Components(manifests string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(manifests, "components/*/kustomization.yaml"))
	if err == nil && len(files) == 0 {
		err = errors.New("no components in " + manifests)
	}
	var names []string
	for _, file := range files {
		names = append(names, filepath.Base(filepath.Dir(file)))
	}
	return names, err
}

// Combinations returns the empty list, each component alone, and each pair in both orders: the order of components in a
// kustomization must not matter.
func Combinations(components []string) [][]string {
	all := [][]string{nil}
	for _, a := range components {
		all = append(all, []string{a})
		for _, b := range components {
			if a != b {
				all = append(all, []string{a, b})
			}
		}
	}
	return all
}

// Build returns the objects of the manifests with these components, as `kubectl apply -k` builds them from the kustomization of a user.
// more has further fields of the kustomization.
func Build(manifests string, components []string, more map[string]any) (objects []map[string]any, err error) {
	built, err := Run(manifests, components, more)
	if err != nil {
		return nil, err
	}
	for _, r := range built.Resources() {
		o, err := r.Map()
		if err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return objects, nil
}

// Run is Build with kustomize's own result, which can print itself.
func Run(manifests string, components []string, more map[string]any) (built resmap.ResMap, err error) {
	dir, err := os.MkdirTemp("", "kustomize")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// A kustomization names other folders by relative paths only.
	manifests, err = filepath.Abs(manifests)
	if err == nil {
		manifests, err = filepath.Rel(dir, manifests)
	}
	if err != nil {
		return nil, err
	}
	k := map[string]any{"resources": []string{manifests}}
	var paths []string
	for _, c := range components {
		paths = append(paths, filepath.Join(manifests, "components", c))
	}
	k["components"] = paths
	for field, value := range more {
		k[field] = value
	}
	text, err := yaml.Marshal(k)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "kustomization.yaml"), text, 0o600)
	}
	if err != nil {
		return nil, err
	}
	built, err = krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, fmt.Errorf("components %q: %w", components, err)
	}
	return built, nil
}
