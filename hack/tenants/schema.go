package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// The CRDs of policies.
// The published CRD is that of the upstream project, which clusters have if they do not install the CRD of this
// project.
const (
	publishedCRD = "published-crd.yaml" // loose
	shippedCRD   = "shipped-crd.yaml"   // of this project
	openCRD      = "open-crd.yaml"      // admits anything, as some CRDs of earlier versions did
)

const crds = "apis/apiextensions.k8s.io/v1/customresourcedefinitions"

// apply creates the objects in a file.
// A file may have several objects. Each must be of a kind that the map knows.
func (r *rig) apply(ctx context.Context, file string) error {
	text, err := os.ReadFile(filepath.Join(r.dir, file))
	if err != nil {
		return err
	}
	for doc := range strings.SplitSeq(string(text), "\n---\n") {
		var o object
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		resource, ns := map[any]string{
			"ServiceAccount": "api/v1/serviceaccounts", "ClusterRole": "apis/rbac.authorization.k8s.io/v1/clusterroles",
			"ClusterRoleBinding": "apis/rbac.authorization.k8s.io/v1/clusterrolebindings",

			"ValidatingAdmissionPolicy": admissionPolicies, "ValidatingAdmissionPolicyBinding": admissionBindings,
		}[o["kind"]], ""
		if meta, ok := o["metadata"].(object); ok {
			ns, _ = meta["namespace"].(string)
		}
		if _, err := r.admin.create(ctx, resource, ns, o); err != nil {
			return fmt.Errorf("%s: %v: %w", file, o["kind"], err)
		}
	}
	return nil
}

// useSchema replaces the CRD of policies, and returns when the API server uses it.
// It tries policies that only some of the CRDs admit, since the API server takes over a CRD some time after the
// write.
func (r *rig) useSchema(ctx context.Context, file string) error {
	if err := r.applyCRD(ctx, file); err != nil {
		return err
	}
	// The open CRD admits the first of these policies, the published CRD the second.
	isText := policyObject("probe", "net", "text")
	hasPort0 := policyObject("probe", "net", object{"podSelector": object{}, "ingress": []object{{"ports": []object{{"port": 0}}}}})
	return eventually(ctx, 30*time.Second, "the API server uses "+file, func() error {
		for _, probe := range []struct {
			policy object
			admits bool
		}{{isText, file == openCRD}, {hasPort0, file != shippedCRD}} {
			body, err := encode(probe.policy)
			if err != nil {
				return err
			}
			if err := r.dryRun(ctx, body); (err == nil) != probe.admits {
				return fmt.Errorf("a probe is not as expected: %v", err) //nolint:errorlint // may be nil
			}
		}
		return nil
	})
}

// writeOpenCRD writes a CRD without a schema.
// It is the published CRD with its schema replaced, so names and versions are the same.
func (r *rig) writeOpenCRD() error {
	text, err := os.ReadFile(filepath.Join(r.dir, publishedCRD))
	if err != nil {
		return err
	}
	before, _, found := strings.Cut(string(text), "openAPIV3Schema:")
	if !found {
		return fmt.Errorf("%s has no schema", publishedCRD)
	}
	text = []byte(before + "openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}\n")
	return os.WriteFile(filepath.Join(r.dir, openCRD), text, 0o644)
}

// applyCRD creates a CRD, or replaces the CRD of the same name.
// Only annotations and spec are replaced, so stored policies stay.
func (r *rig) applyCRD(ctx context.Context, file string) error {
	text, err := os.ReadFile(filepath.Join(r.dir, file))
	if err != nil {
		return err
	}
	var o object
	if err := yaml.Unmarshal(text, &o); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	meta, _ := o["metadata"].(object)
	if meta == nil {
		return fmt.Errorf("%s has no metadata", file)
	}
	// Groups below k8s.io need it.
	meta["annotations"] = object{"api-approved.kubernetes.io": "unapproved, for a test"}
	patch := object{"metadata": object{"annotations": meta["annotations"]}, "spec": o["spec"]}
	name, _ := meta["name"].(string)
	if _, err := r.admin.get(ctx, pathOf(crds, "", name)); err == nil {
		return r.admin.merge(ctx, crds, "", name, patch)
	}
	if _, err := r.admin.create(ctx, crds, "", o); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// tryShipped asks the API server whether the shipped CRD admits the policies of the attacks.
// The answer is a column of the report: a CRD that refuses the policy is a protection, but no cluster must have it.
func (r *rig) tryShipped(ctx context.Context, rows []*row) error {
	if err := r.useSchema(ctx, shippedCRD); err != nil {
		return err
	}
	for _, x := range rows {
		if x.policy == nil {
			continue
		}
		x.shipped = "admits"
		if err := r.dryRun(ctx, x.policy); err != nil {
			x.shipped = "refuses"
		}
	}
	return nil
}

// dryRun returns the error that the creation of the policy would have.
func (r *rig) dryRun(ctx context.Context, policy []byte) error {
	_, err := r.evil.do(ctx, http.MethodPost, pathOf(policies, evilNamespace)+"?dryRun=All", jsonType, metadataOnly, policy)
	return err
}
