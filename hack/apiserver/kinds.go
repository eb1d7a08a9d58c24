package apiserver

import (
	"context"
	"fmt"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
)

// AlwaysAllow is a flag of an API server that authorizes all requests, so that measurements spend no time on RBAC.
const AlwaysAllow = "--authorization-mode=AlwaysAllow"

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

// NADsPath and PoliciesPath return the paths of the objects of both custom kinds in a namespace.
func NADsPath(namespace string) string {
	return "/apis/k8s.cni.cncf.io/v1/namespaces/" + namespace + "/network-attachment-definitions"
}

// PoliciesPath is NADsPath for policies.
func PoliciesPath(namespace string) string {
	return "/apis/k8s.cni.cncf.io/v1beta1/namespaces/" + namespace + "/multi-networkpolicies"
}

// Post creates an object by its JSON: the client has no methods for the custom kinds.
func Post(ctx context.Context, client kubernetes.Interface, path string, body []byte) error {
	return client.Discovery().RESTClient().Post().AbsPath(path).SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Error()
}

// CreateKinds defines the two custom kinds, and returns when the API server serves them.
func CreateKinds(ctx context.Context, client kubernetes.Interface) error {
	for _, d := range []string{
		fmt.Sprintf(definition, "network-attachment-definitions", "NetworkAttachmentDefinition", "v1"),
		fmt.Sprintf(definition, "multi-networkpolicies", "MultiNetworkPolicy", "v1beta1"),
	} {
		if err := Post(ctx, client, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", []byte(d)); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for _, path := range []string{NADsPath("default"), PoliciesPath("default")} {
		err := await.NoError(ctx, "custom resources are served", func() error {
			return client.Discovery().RESTClient().Get().AbsPath(path).Do(ctx).Error()
		})
		if err != nil {
			return err
		}
	}
	return nil
}
