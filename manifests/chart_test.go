package manifests

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/yaml"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/kustomize"
)

// releaseNamespace is the namespace of the kustomize manifests.
const releaseNamespace = "multi-networkpolicy-system"

func loadChart(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.LoadDir("chart")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// render returns the objects of the chart, those of crds included, as `helm install` creates them in a namespace.
func render(c *chart.Chart, namespace string, values map[string]any) ([]map[string]any, error) {
	options := common.ReleaseOptions{Name: "release", Namespace: namespace, Revision: 1, IsInstall: true}
	input, err := util.ToRenderValues(c, values, options, nil)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(c, input)
	if err != nil {
		return nil, err
	}
	for _, crd := range c.CRDObjects() {
		files[crd.Name] = string(crd.File.Data)
	}
	var objects []map[string]any
	for name, text := range files {
		if path.Ext(name) != ".yaml" {
			continue
		}
		for document := range strings.SplitSeq("\n"+text, "\n---\n") {
			var o map[string]any
			if err := yaml.UnmarshalStrict([]byte(document), &o); err != nil {
				return nil, fmt.Errorf("%s: %w in\n%s", name, err, document)
			}
			if o != nil {
				objects = append(objects, o)
			}
		}
	}
	return objects, nil
}

// byName returns the objects by kind and name, without the namespace, which helm creates itself. Lists whose order means nothing are
// sorted: components append to them in the order of the kustomization.
func byName(t *testing.T, objects []map[string]any) map[string]any {
	t.Helper()
	named := map[string]any{}
	for _, o := range objects {
		// Both sides get the types of JSON.
		data, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		var plain map[string]any
		if err := json.Unmarshal(data, &plain); err != nil {
			t.Fatal(err)
		}
		name := object(plain).name()
		if plain["kind"] == "Namespace" {
			continue
		}
		if named[name] != nil {
			t.Errorf("%s is there twice", name)
		}
		sortLists(plain)
		named[name] = plain
	}
	return named
}

// sortLists sorts the lists of the DaemonSet to which components append.
func sortLists(v any) {
	m, ok := v.(map[string]any)
	if !ok {
		return
	}
	for key, inner := range m {
		list, _ := inner.([]any)
		if slices.Contains([]string{"args", "env", "volumes", "volumeMounts"}, key) {
			slices.SortFunc(list, func(a, b any) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		}
		for _, item := range list {
			sortLists(item)
		}
		sortLists(inner)
	}
}

// TestChart compares the chart with the kustomize manifests: by default, with each component and with each pair.
func TestChart(t *testing.T) {
	names, err := kustomize.Components(".")
	if err != nil {
		t.Fatal(err)
	}
	c := loadChart(t)
	for _, components := range kustomize.Combinations(names) {
		compareChart(t, c, components, nil, map[string]any{"components": append([]any{}, asAny(components)...)})
	}
}

// TestChartValues compares the other values of the chart with the patches that a user of kustomize writes.
func TestChartValues(t *testing.T) {
	c := loadChart(t)
	patch := func(text string) map[string]any {
		return map[string]any{"patches": []any{map[string]any{"target": map[string]any{"kind": "DaemonSet"}, "patch": text}}}
	}
	repository, _, _ := strings.Cut(agentContainer(t).Image, ":")
	cases := map[string]struct{ kustomization, values map[string]any }{
		"image": {
			map[string]any{"images": []any{map[string]any{"name": repository, "newName": "example.com/agent", "newTag": "v9"}}},
			map[string]any{"image": map[string]any{"repository": "example.com/agent", "tag": "v9"}},
		},
		"extraArgs": {
			patch("- {op: add, path: /spec/template/spec/containers/0/args/-, value: --accept-icmp}"),
			map[string]any{"extraArgs": []any{"--accept-icmp"}},
		},
		"resources": {
			patch("- {op: add, path: /spec/template/spec/containers/0/resources/limits/cpu, value: '2'}"),
			map[string]any{"resources": map[string]any{"limits": map[string]any{"cpu": "2"}}},
		},
	}
	for name := range c.Values {
		tc, ok := cases[name]
		switch {
		case ok:
			compareChart(t, c, nil, tc.kustomization, tc.values)
		case name != "components": // see TestChart
			t.Errorf("no case for the value %s", name)
		}
	}
}

func compareChart(t *testing.T, c *chart.Chart, components []string, kustomization, values map[string]any) {
	t.Helper()
	want, err := kustomize.Build(".", components, kustomization)
	if err != nil {
		t.Fatal(err)
	}
	got, err := render(c, releaseNamespace, values)
	if err != nil {
		t.Errorf("%v: %v", values, err)
		return
	}
	if diff := gocmp.Diff(byName(t, want), byName(t, got)); diff != "" {
		t.Errorf("%v (-kustomize +chart):\n%s", values, diff)
	}
}

// TestChartPackage checks that the packaged chart has the files behind its links: it renders the same objects as the folder.
func TestChartPackage(t *testing.T) {
	names, err := kustomize.Components(".")
	if err != nil {
		t.Fatal(err)
	}
	c := loadChart(t)
	file, err := chartutil.Save(c, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	packaged, err := loader.LoadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{"components": asAny(names)}
	want, err := render(c, releaseNamespace, values)
	if err != nil {
		t.Fatal(err)
	}
	got, err := render(packaged, releaseNamespace, values)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(byName(t, want), byName(t, got)); diff != "" {
		t.Errorf("(-folder +package):\n%s", diff)
	}
}

// TestChartNamespace checks that a release in another namespace names the namespace of the manifests nowhere.
func TestChartNamespace(t *testing.T) {
	names, err := kustomize.Components(".")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := render(loadChart(t), "elsewhere", map[string]any{"components": asAny(names)})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		text, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), releaseNamespace) {
			t.Errorf("%s names the namespace:\n%s", object(o).name(), text)
		}
	}
}

// TestChartSchema checks that the schema refuses mistakes, and knows each component.
func TestChartSchema(t *testing.T) {
	c := loadChart(t)
	for _, text := range []string{
		`{component: [crio]}`, `{components: [cri-o]}`, `{components: crio}`, `{components: [crio, crio]}`, `{image: {tags: v1}}`,
		`{image: {tag: 1}}`, `{extraArgs: [accept-icmp]}`, `{resources: {limit: {}}}`,
	} {
		var values map[string]any
		if err := yaml.Unmarshal([]byte(text), &values); err != nil {
			t.Fatal(err)
		}
		if _, err := render(c, releaseNamespace, values); err == nil {
			t.Errorf("accepted: %s", text)
		}
	}
}

// TestChartVersion checks that the tag of the image in the base is the appVersion of the chart, and that the image is the same.
func TestChartVersion(t *testing.T) {
	repository, tag, _ := strings.Cut(agentContainer(t).Image, ":")
	c := loadChart(t)
	if c.Metadata.AppVersion != tag || c.Metadata.Version != strings.TrimPrefix(tag, "v") {
		t.Errorf("chart %s, appVersion %s; the image has the tag %s", c.Metadata.Version, c.Metadata.AppVersion, tag)
	}
	if image := c.Values["image"].(map[string]any); image["repository"] != repository || image["tag"] != "" {
		t.Errorf("image %v, want repository %s and no tag", image, repository)
	}
}

// TestAgentWithoutHelm checks that the program of the agent has nothing of the libraries with which tests render manifests.
func TestAgentWithoutHelm(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "..").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "/internal/agent\n") {
		t.Fatalf("not the program of the agent:\n%s", out)
	}
	for _, library := range []string{"helm.sh/", "sigs.k8s.io/kustomize"} {
		if strings.Contains(string(out), library) {
			t.Errorf("the agent has %s", library)
		}
	}
}
