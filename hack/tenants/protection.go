package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// protection is the file of the component protect-network-status.
const protection = "protect-network-status.yaml"

const (
	protectionName    = "multi-networkpolicy-protect-network-status"
	admissionPolicies = "apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
	admissionBindings = "apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
)

// protect installs the component, or removes it, and returns when the API server has noticed.
// It tries the effect with a dry run, since the API server compiles admission policies some time after they are
// created.
func (r *rig) protect(ctx context.Context, install bool) error {
	if install {
		if err := r.apply(ctx, protection); err != nil {
			return err
		}
	} else if err := errors.Join(r.admin.remove(ctx, admissionBindings, "", protectionName), r.admin.remove(ctx, admissionPolicies, "", protectionName)); err != nil {
		return err
	}
	body, err := encode(podObject("probe", "node-2", nil, map[string]string{statusAnnotation: "[]"}))
	if err != nil {
		return err
	}
	return eventually(ctx, 30*time.Second, "the API server has noticed the admission policy", func() error {
		_, err := r.evil.do(ctx, http.MethodPost, pathOf(pods, evilNamespace)+"?dryRun=All", jsonType, metadataOnly, body)
		switch {
		// A refusal is the sign that the policy works; any other answer is of a server that does not know it yet.
		case install && !apierrors.IsForbidden(err):
			return fmt.Errorf("a pod with a network status is not refused: %v", err) //nolint:errorlint // may be nil
		case !install:
			return err
		}
		return nil
	})
}

// claimStranger needs no node: the API server admits a pod with the name of any node, and a kubelet leaves a pod that
// waits for a volume as it is. Only admission control can prevent that.
// Without the component, the stranger's packets would reach the victim: leaksAtMost. The attack runs with the
// component, tries each way to write the annotation, and checks that Multus and the scheduler still can.
func claimStranger(ctx context.Context, t *tenant) error {
	if err := t.protect(ctx, true); err != nil {
		return err
	}
	t.atEnd(func() {
		if err := t.protect(context.WithoutCancel(ctx), false); err != nil {
			t.fault("remove the component: %v", err)
		}
	})
	labels := map[string]string{"role": metricsLabel}
	stolen := networkStatus(victimNetwork, addresses["stranger"])
	if err := t.create(ctx, pods, evilNamespace, podObject("plain", "node-2", labels, nil)); err != nil {
		return err
	}
	if err := t.create(ctx, pods, evilNamespace, podObject("unbound", "", labels, nil)); err != nil {
		return err
	}
	// Both names of the annotation, current and legacy, by creation, change and binding.
	for i, name := range []string{statusAnnotation, legacyStatusAnnotation} {
		annotation := map[string]string{name: stolen}
		t.mustRefuse("create a pod with "+name, t.create(ctx, pods, evilNamespace, podObject(fmt.Sprintf("spoof-%d", i), "node-2", labels, annotation)))
		t.mustRefuse("add "+name, t.api.merge(ctx, pods, evilNamespace, "plain", object{"metadata": object{"annotations": annotation}}))
		t.mustRefuse("bind a pod with "+name, bind(ctx, t.admin, "unbound", annotation))
	}
	if err := bind(ctx, t.admin, "unbound", nil); err != nil {
		t.fault("the scheduler cannot bind a pod: %v", err)
	}
	// Multus writes as always. Then the tenant may change other parts of the pod, and not the status.
	if err := t.admin.report(ctx, evilNamespace, "plain", networkStatus(victimNetwork, evilAddress(1))); err != nil {
		t.fault("Multus cannot report the status of a pod: %v", err)
	}
	if err := t.api.merge(ctx, pods, evilNamespace, "plain", object{"metadata": object{"labels": object{"a": "b"}}}); err != nil {
		t.fault("the label of a pod cannot be changed: %v", err)
	}
	t.mustRefuse("change the status that Multus wrote",
		t.api.merge(ctx, pods, evilNamespace, "plain", object{"metadata": object{"annotations": object{statusAnnotation: stolen}}}))
	t.note("with the component protect-network-status; without it the pod is admitted, and packets from the address reach the victim")
	return nil
}

// bind puts a pod on a node, as the scheduler does. The annotations go to the pod.
func bind(ctx context.Context, c *client, pod string, annotations map[string]string) error {
	body, err := encode(object{
		"apiVersion": "v1", "kind": "Binding", "metadata": object{"name": pod, "annotations": annotations},
		"target": object{"apiVersion": "v1", "kind": "Node", "name": "node-2"},
	})
	if err == nil {
		_, err = c.do(ctx, http.MethodPost, pathOf(pods, evilNamespace, pod, "binding"), jsonType, jsonType, body)
	}
	return err
}

// mustRefuse notes a fault unless the API server has refused a request.
// what names the request. A request that fails for another reason is a fault too: it proves nothing.
func (t *tenant) mustRefuse(what string, err error) {
	if !apierrors.IsForbidden(err) {
		t.fault("%s is not refused: %v", what, err)
	}
}
