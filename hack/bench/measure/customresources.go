package main

import (
	"context"
	"encoding/json"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/apiserver"
)

// createCustomObjects creates the networks, then the policies of the base state. The copies get their kind, which
// typed objects lack and the API server requires.
func (w *wholeAgent) createCustomObjects(ctx context.Context) error {
	for _, n := range w.objects.networks {
		n = n.DeepCopy()
		n.APIVersion, n.Kind = "k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition"
		if err := w.postObject(ctx, apiserver.NADsPath("local"), n); err != nil {
			return err
		}
	}
	for _, p := range w.objects.policies {
		p = p.DeepCopy()
		p.APIVersion, p.Kind = "k8s.cni.cncf.io/v1beta1", "MultiNetworkPolicy"
		if err := w.postObject(ctx, apiserver.PoliciesPath("local"), p); err != nil {
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
	return apiserver.Post(ctx, w.client, path, body)
}
