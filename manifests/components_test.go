package manifests

import (
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/yaml"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// TestProtectNetworkStatus checks that the component covers the annotations that the agent reads, allows the subresource that
// Multus uses, and is in force when it is applied. `make tenants` tries it on an API server.
func TestProtectNetworkStatus(t *testing.T) {
	objects := read(t, "components/protect-network-status")
	if len(objects) != 2 {
		t.Fatalf("%d objects", len(objects))
	}
	var p admissionv1.ValidatingAdmissionPolicy
	var b admissionv1.ValidatingAdmissionPolicyBinding
	for i, into := range []any{&p, &b} {
		text, err := yaml.Marshal(objects[i])
		if err == nil {
			err = yaml.UnmarshalStrict(text, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{cache.StatusAnnotation, cache.LegacyStatusAnnotation} {
		if !strings.Contains(p.Spec.Validations[0].Expression, `"`+name+`"`) {
			t.Errorf("%s is not protected", name)
		}
	}
	if r := p.Spec.MatchConstraints.ResourceRules; len(r) != 1 || !slices.Contains(r[0].Resources, "pods") || slices.Contains(r[0].Resources, "pods/status") {
		t.Errorf("resources %v", r)
	}
	if *p.Spec.FailurePolicy != admissionv1.Fail {
		t.Errorf("failure policy %s", *p.Spec.FailurePolicy)
	}
	if b.Spec.PolicyName != p.Name || !slices.Equal(b.Spec.ValidationActions, []admissionv1.ValidationAction{admissionv1.Deny}) {
		t.Errorf("binding %+v", b.Spec)
	}
}
