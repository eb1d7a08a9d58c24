package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// definition is a CustomResourceDefinition without a schema, so that validation takes no time.
// Arguments: the plural, the kind and the version.
const definition = `{
"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
"metadata": {"name": "%[1]s.k8s.cni.cncf.io", "annotations": {"api-approved.kubernetes.io": "unapproved, for a measurement"}},
"spec": {
 "group": "k8s.cni.cncf.io", "scope": "Namespaced", "names": {"kind": "%[2]s", "plural": "%[1]s"},
 "versions": [{"name": "%[3]s", "served": true, "storage": true,
  "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]
}}`

// The local pods, their networks and all policies are in the namespace local.
const (
	nadsPath     = "/apis/k8s.cni.cncf.io/v1/namespaces/local/network-attachment-definitions"
	policiesPath = "/apis/k8s.cni.cncf.io/v1beta1/namespaces/local/multi-networkpolicies"
)

// post creates an object by its JSON: the client has no methods for the custom kinds.
func (w *wholeAgent) post(ctx context.Context, path string, body []byte) error {
	return w.client.Discovery().RESTClient().Post().AbsPath(path).SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Error()
}

// createCustom defines the two custom kinds and returns when the API server serves them.
func (w *wholeAgent) createCustom(ctx context.Context) error {
	for _, d := range []string{
		fmt.Sprintf(definition, "network-attachment-definitions", "NetworkAttachmentDefinition", "v1"),
		fmt.Sprintf(definition, "multi-networkpolicies", "MultiNetworkPolicy", "v1beta1"),
	} {
		if err := w.post(ctx, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", []byte(d)); err != nil {
			return err
		}
	}
	return eventually(30*time.Second, "custom resources are served", func() error {
		for _, path := range []string{nadsPath, policiesPath} {
			if err := w.client.Discovery().RESTClient().Get().AbsPath(path).Do(ctx).Error(); err != nil {
				return err
			}
		}
		return nil
	})
}

// createCustomObjects creates the networks, then the policies of the base state. The copies get their kind, which
// typed objects lack and the API server requires.
func (w *wholeAgent) createCustomObjects(ctx context.Context) error {
	for _, n := range w.objects.networks {
		n = n.DeepCopy()
		n.APIVersion, n.Kind = "k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition"
		if err := w.postObject(ctx, nadsPath, n); err != nil {
			return err
		}
	}
	for _, p := range w.objects.policies {
		p = p.DeepCopy()
		p.APIVersion, p.Kind = "k8s.cni.cncf.io/v1beta1", "MultiNetworkPolicy"
		if err := w.postObject(ctx, policiesPath, p); err != nil {
			return err
		}
	}
	return nil
}

func (w *wholeAgent) postObject(ctx context.Context, path string, o any) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return w.post(ctx, path, body)
}
