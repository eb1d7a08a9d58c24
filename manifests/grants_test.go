package manifests

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/kustomize"
)

// object is an object of any kind, as in its file.
type object map[string]any

func (o object) name() string {
	metadata, _ := o["metadata"].(map[string]any)
	return fmt.Sprintf("%s %s", o["kind"], metadata["name"])
}

// kustomization has the fields of kustomize of folders without patches. read fails at any other field.
type kustomization struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Resources  []string `json:"resources"`
}

// build returns the objects of the base with components.
func build(t *testing.T, components ...string) []object {
	t.Helper()
	built, err := kustomize.Build(".", components, nil)
	if err != nil {
		t.Fatal(err)
	}
	var all []object
	for _, o := range built {
		all = append(all, o)
	}
	return all
}

// read returns the objects of the files that a folder without patches lists.
func read(t *testing.T, dir string) []object {
	t.Helper()
	var k kustomization
	data, err := os.ReadFile(filepath.Join(dir, "kustomization.yaml"))
	if err == nil {
		err = yaml.UnmarshalStrict(data, &k)
	}
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	var all []object
	for _, resource := range k.Resources {
		path := filepath.Join(dir, resource)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			all = append(all, read(t, path)...)
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, parse(t, string(data))...)
	}
	return all
}

func parse(t *testing.T, documents string) []object {
	t.Helper()
	var all []object
	for _, document := range strings.Split(documents, "\n---\n") {
		var o object
		if err := yaml.UnmarshalStrict([]byte(document), &o); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if o != nil {
			all = append(all, o)
		}
	}
	return all
}

// grants returns all privileges that the objects give the agent, a line for each. It leaves out fields that are known to be
// harmless, and includes unknown fields.
func grants(t *testing.T, objects []object) []string {
	t.Helper()
	found := map[string]bool{}
	for _, o := range objects {
		found[o.name()] = true
		switch o["kind"] {
		case "CustomResourceDefinition", "PodMonitor", "PrometheusRule", "ConfigMap", "Namespace":
		case "ClusterRole", "Role":
			roleGrants(t, o, found)
		case "DaemonSet":
			podGrants(t, o, found)
		default:
			flatten(o.name()+" ", without(o, "apiVersion", "kind", "metadata.name"), found)
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// roleGrants returns a line for each verb on each resource.
func roleGrants(t *testing.T, o object, found map[string]bool) {
	t.Helper()
	var role rbacv1.ClusterRole
	convert(t, o, &role)
	for _, rule := range role.Rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					found[fmt.Sprintf("%s: %s %s", o.name(), verb, strings.Trim(resource+"."+group, "."))] = true
				}
			}
		}
		flatten(o.name()+": only ", map[string]any{"names": asAny(rule.ResourceNames), "urls": asAny(rule.NonResourceURLs)}, found)
	}
	flatten(o.name()+" ", without(o, "apiVersion", "kind", "metadata.name", "rules"), found)
}

// podGrants returns a line for each field of the pod, without fields that grant nothing.
func podGrants(t *testing.T, o object, found map[string]bool) {
	t.Helper()
	template, _ := o["spec"].(map[string]any)["template"].(map[string]any)
	var pod corev1.PodSpec
	convert(t, template["spec"], &pod) // fails at a misspelled field
	spec := without(template["spec"].(map[string]any), "priorityClassName", "tolerations", "terminationGracePeriodSeconds")
	containers, _ := spec["containers"].([]any)
	for i, c := range containers {
		containers[i] = map[string]any(without(c.(map[string]any),
			"image", "args", "env", "ports", "livenessProbe", "readinessProbe", "resources"))
	}
	flatten(o.name()+" pod", map[string]any(spec), found)
	flatten(o.name()+" pod", map[string]any(without(template, "spec", "metadata.labels")), found)
}

// convert decodes the object into a type of the API, and fails at unknown fields.
func convert(t *testing.T, from, to any) {
	t.Helper()
	data, err := yaml.Marshal(from)
	if err == nil {
		err = yaml.UnmarshalStrict(data, to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// without returns a copy of o without the fields, named as "first" or "first.second".
func without(o map[string]any, fields ...string) object {
	next := maps.Clone(o)
	for _, field := range fields {
		first, second, nested := strings.Cut(field, ".")
		if inner, ok := next[first].(map[string]any); ok && nested {
			next[first] = map[string]any(without(inner, second))
		} else if !nested {
			delete(next, first)
		}
	}
	return next
}

func asAny(list []string) []any {
	var out []any
	for _, s := range list {
		out = append(out, s)
	}
	return out
}

// flatten returns a line for each value: its path, with the names of list items, and the value.
func flatten(path string, v any, found map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			flatten(path+"."+key, inner, found)
		}
	case object:
		flatten(path, map[string]any(v), found)
	case []any:
		for _, inner := range v {
			in := path
			if o, ok := inner.(map[string]any); ok {
				in = fmt.Sprintf("%s[%v]", path, o["name"])
				inner = map[string]any(without(o, "name"))
			}
			flatten(in, inner, found)
		}
	default:
		found[fmt.Sprintf("%s: %v", path, v)] = true
	}
}
