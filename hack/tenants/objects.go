package main

import (
	"context"
	"encoding/json"
	"net/netip"
	"strings"
)

// matchLabel is a label selector.
func matchLabel(key, value string) object {
	return object{"matchLabels": object{key: value}}
}

// podsWith is the peer "pods of the policy's namespace with this label".
func podsWith(key, value string) object { return object{"podSelector": matchLabel(key, value)} }

// policyObject is a policy for the networks, a list as in the annotation.
func policyObject(name, networks string, spec any) object {
	return object{
		"apiVersion": "k8s.cni.cncf.io/v1beta1", "kind": "MultiNetworkPolicy",
		"metadata": object{"name": name, "annotations": object{policyAnnotation: networks}},
		"spec":     spec,
	}
}

// nadObject is a NetworkAttachmentDefinition.
func nadObject(name, config string) object {
	return object{
		"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": object{"name": name},
		"spec": object{"config": config},
	}
}

// podObject is a pod as its creator writes it. An empty node is a pod that waits for the scheduler.
func podObject(name, node string, labels, annotations map[string]string) object {
	spec := object{"containers": []object{{"name": "main", "image": "none"}}, "terminationGracePeriodSeconds": 0}
	if node != "" {
		spec["nodeName"] = node
	}
	return object{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": object{"name": name, "labels": labels, "annotations": annotations},
		"spec":     spec,
	}
}

// networkStatus returns a network status with net1 on the given network.
func networkStatus(network string, addrs ...netip.Addr) string {
	var ips []string
	for _, a := range addrs {
		ips = append(ips, a.String())
	}
	return statusText(object{"name": network, "interface": "net1", "ips": ips})
}

// statusText is a network status with the entries.
func statusText(entries ...object) string {
	text, err := json.Marshal(entries)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(text)
}

// report writes the network status and the phase of a pod through the subresource status, as Multus and the kubelet do.
func (c *client) report(ctx context.Context, namespace, name, status string) error {
	_, err := c.patch(ctx, mergePatch, pathOf(pods, namespace, name, "status"), object{
		"metadata": object{"annotations": object{statusAnnotation: status}},
		"status":   object{"phase": "Running"},
	})
	return err
}

// repeat returns the text n times, with the separator between.
func repeat(n int, separator string, text func(i int) string) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(separator)
		}
		b.WriteString(text(i))
	}
	return b.String()
}

// rawSpec is a spec as JSON text.
func rawSpec(text string) json.RawMessage { return json.RawMessage(text) }
