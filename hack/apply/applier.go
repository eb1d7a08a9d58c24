package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
)

// applier applies objects of any kind. seen has the JSON of the objects that were checked, kinds their kinds.
type applier struct {
	client dynamic.Interface
	mapper *restmapper.DeferredDiscoveryRESTMapper
	seen   map[string]bool
	kinds  map[string]bool
}

func newApplier(config *rest.Config) (*applier, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	return &applier{
		client: client, mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(d)),
		seen: map[string]bool{}, kinds: map[string]bool{},
	}, nil
}

// apply applies an object, with strict validation of its fields. A dry run stores nothing.
func (a *applier) apply(ctx context.Context, content map[string]any, dryRun bool) error {
	o := unstructured.Unstructured{Object: content}
	kind := o.GroupVersionKind()
	mapping, err := a.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return fmt.Errorf("%s %s: %w", o.GetKind(), o.GetName(), err)
	}
	text, err := json.Marshal(content)
	if err != nil {
		return err
	}
	options := metav1.PatchOptions{FieldManager: "apply", FieldValidation: metav1.FieldValidationStrict}
	if dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	// Objects of the cluster have no namespace in their path, whatever their metadata says.
	var resource dynamic.ResourceInterface = a.client.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		resource = a.client.Resource(mapping.Resource).Namespace(o.GetNamespace())
	}
	if _, err := resource.Patch(ctx, o.GetName(), types.ApplyPatchType, text, options); err != nil {
		return fmt.Errorf("%s %s: %w", o.GetKind(), o.GetName(), err)
	}
	return nil
}

// waitServed waits until the API server serves the objects that a CRD defines.
func (a *applier) waitServed(ctx context.Context, crd map[string]any) error {
	var definition struct {
		Spec struct {
			Group    string
			Names    struct{ Plural string }
			Versions []struct{ Name string }
		}
	}
	text, err := json.Marshal(crd)
	if err == nil {
		err = json.Unmarshal(text, &definition)
	}
	if err != nil {
		return err
	}
	resource := schema.GroupVersionResource{
		Group: definition.Spec.Group, Version: definition.Spec.Versions[0].Name, Resource: definition.Spec.Names.Plural,
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return await.NoError(ctx, "the API server serves "+resource.String(), func() error {
		a.mapper.Reset() // the mapper caches a discovery from before the CRD
		_, err := a.mapper.KindFor(resource)
		return err
	})
}

// foreign are the files with the CRDs of other projects, by the version of a Go module that has them.
var foreign = map[string][]string{
	"github.com/openshift/api@v0.0.0-20251015095338-264e80a2b6e7": {
		"security/v1/zz_generated.crd-manifests/0000_03_config-operator_01_securitycontextconstraints.crd.yaml",
	},
	"github.com/prometheus-operator/prometheus-operator@v0.83.0": {
		"example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
		"example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
	},
}

// foreignCRDs returns the CRDs as their projects publish them. The Go module proxy has them; the checksum database vouches for them.
func foreignCRDs(ctx context.Context) (crds []map[string]any, err error) {
	for module, files := range foreign {
		cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("download %s: %w: %s", module, err, out)
		}
		var downloaded struct{ Dir string }
		if err := json.Unmarshal(out, &downloaded); err != nil {
			return nil, err
		}
		for _, file := range files {
			text, err := os.ReadFile(filepath.Join(downloaded.Dir, file))
			if err != nil {
				return nil, err
			}
			var crd map[string]any
			if err := yaml.Unmarshal(text, &crd); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			crds = append(crds, crd)
		}
	}
	return crds, nil
}
