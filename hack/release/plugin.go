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

// pluginPlatforms returns the platforms of the plugin: it runs on the machines of users.
func pluginPlatforms() (all []platform) {
	for _, system := range []string{"linux", "darwin", "windows"} {
		for _, arch := range architectures {
			all = append(all, platform{system, arch})
		}
	}
	return all
}

// pluginArchive returns the name of the plugin's archive for a platform. krew unpacks tar.gz on each operating system.
func pluginArchive(p platform) string {
	return "kubectl-" + plugin + "-" + p.os + "-" + p.arch + ".tar.gz"
}

// pluginFile returns the name of the program in the archive. Windows runs files with an extension of programs only.
func pluginFile(p platform) string {
	if p.os == "windows" {
		return "kubectl-" + plugin + ".exe"
	}
	return "kubectl-" + plugin
}

// writePlugin writes an archive with the kubectl plugin and the license for each platform, and the manifest for krew.
func (r *release) writePlugin(ctx context.Context) error {
	license, err := os.ReadFile(filepath.Join(r.root, "LICENSE"))
	if err != nil {
		return err
	}
	for _, p := range r.plugin {
		if err := r.packPlugin(ctx, p, license); err != nil {
			return err
		}
	}
	return r.writeKrew()
}

// packPlugin writes the archive for a platform.
func (r *release) packPlugin(ctx context.Context, p platform, license []byte) error {
	dir, err := os.MkdirTemp("", "release-plugin-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	if err := r.buildProgram(ctx, p, "./cmd/kubectl-"+plugin, filepath.Join(dir, pluginFile(p)), pluginArchive(p)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "LICENSE"), license, 0o644); err != nil {
		return err
	}
	return r.archive(pluginArchive(p), dir)
}

// writeKrew writes the manifest with which krew installs the plugin (https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest).
func (r *release) writeKrew() error {
	var platforms []map[string]any
	for _, p := range r.plugin {
		sum, err := checksum(r.file(pluginArchive(p)))
		if err != nil {
			return err
		}
		platforms = append(platforms, map[string]any{
			"selector": map[string]any{"matchLabels": map[string]string{"os": p.os, "arch": p.arch}},
			"uri":      fmt.Sprintf("%s/releases/download/%s/%s", source, r.version, pluginArchive(p)), "sha256": sum, "bin": pluginFile(p),
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
