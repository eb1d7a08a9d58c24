package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

// plugin is the name of the kubectl plugin in the index of krew. kubectl runs the file kubectl-mnp.
const plugin = "mnp"

// pluginArchive returns the name of the plugin's archive for an architecture.
func pluginArchive(arch string) string { return "kubectl-" + plugin + "-linux-" + arch + ".tar.gz" }

// writePlugin writes an archive with the kubectl plugin and the license for each architecture, and the manifest for krew.
func (r *release) writePlugin(ctx context.Context) error {
	license, err := os.ReadFile(filepath.Join(r.root, "LICENSE"))
	if err != nil {
		return err
	}
	for _, arch := range architectures {
		if err := r.packPlugin(ctx, arch, license); err != nil {
			return err
		}
	}
	return r.writeKrew()
}

// packPlugin writes the archive for an architecture.
func (r *release) packPlugin(ctx context.Context, arch string, license []byte) error {
	dir, err := os.MkdirTemp("", "release-plugin-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	if err := r.buildProgram(ctx, arch, "./cmd/kubectl-"+plugin, filepath.Join(dir, "kubectl-"+plugin)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "LICENSE"), license, 0o644); err != nil {
		return err
	}
	return r.archive(pluginArchive(arch), dir)
}

// writeKrew writes the manifest with which krew installs the plugin (https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest).
func (r *release) writeKrew() error {
	var platforms []map[string]any
	for _, arch := range architectures {
		sum, err := checksum(r.file(pluginArchive(arch)))
		if err != nil {
			return err
		}
		platforms = append(platforms, map[string]any{
			"selector": map[string]any{"matchLabels": map[string]string{"os": "linux", "arch": arch}},
			"uri":      fmt.Sprintf("%s/releases/download/%s/%s", source, r.version, pluginArchive(arch)), "sha256": sum, "bin": "kubectl-" + plugin,
		})
	}
	data, err := yaml.Marshal(map[string]any{
		"apiVersion": "krew.googlecontainertools.github.com/v1alpha2", "kind": "Plugin", "metadata": map[string]string{"name": plugin},
		"spec": map[string]any{
			"version": r.version, "homepage": source, "shortDescription": "Explain policies of secondary networks",
			"description": "Says which packets the MultiNetworkPolicies of a cluster or of files allow, between two pods, in a namespace,\n" +
				"and the connections that a change of policies opens and closes.\n",
			"platforms": platforms,
		},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(r.file("krew-"+plugin+".yaml"), data, 0o644)
}
