package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// chartDir is the folder of the Helm chart.
const chartDir = "manifests/chart"

// writeChart packages the Helm chart as NAME-VERSION.tgz. It sets the version of the chart, without the letter
// v as Helm wants it, and the version of the application, which is the tag of the image.
func (r *release) writeChart() error {
	meta, err := os.ReadFile(filepath.Join(r.root, chartDir, "Chart.yaml"))
	if err != nil {
		return err
	}
	var chart map[string]any
	if err := yaml.Unmarshal(meta, &chart); err != nil {
		return err
	}
	name, ok := chart["name"].(string)
	if !ok {
		return errors.New("no name in Chart.yaml")
	}
	version := strings.TrimPrefix(r.version, "v")
	chart["version"], chart["appVersion"] = version, r.version
	if meta, err = yaml.Marshal(chart); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "release-chart-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	// Helm wants a folder with the name of the chart in the archive.
	copied := filepath.Join(dir, name)
	if err := copyFiles(copied, filepath.Join(r.root, chartDir)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(copied, "Chart.yaml"), meta, 0o644); err != nil {
		return err
	}
	return r.archive(fmt.Sprintf("%s-%s.tgz", name, version), dir)
}

// copyFiles copies a folder. A link becomes a copy of its destination: the chart in the work tree links to the other manifests.
func copyFiles(to, from string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, e := range entries {
		source, target := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		info, err := os.Stat(source)
		switch {
		case err != nil:
			return err
		case info.IsDir():
			err = copyFiles(target, source)
		default:
			err = copyFile(target, source)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}
