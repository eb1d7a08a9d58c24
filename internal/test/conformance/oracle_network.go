package conformance

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
)

// requestedBy reads what a pod asks for: a JSON list, or names of networks with commas between them and an interface's name
// behind an @. An interface without a name is net and its place in the list. It is false when that cannot be read.
func requestedBy(p *corev1.Pod) ([]attachment, bool) {
	raw := strings.TrimSpace(p.Annotations[networksAnnotation])
	if raw == "" {
		return nil, true
	}
	var requests []struct{ Name, Namespace, Interface, InterfaceRequest string }
	if strings.ContainsAny(raw, "[{") {
		if err := json.Unmarshal([]byte(raw), &requests); err != nil {
			return nil, false
		}
	} else {
		for _, s := range strings.Split(raw, ",") {
			name, iface, _ := strings.Cut(s, "@")
			namespace, name, ok := strings.Cut(name, "/")
			if !ok {
				namespace, name = "", namespace
			}
			requests = append(requests, struct{ Name, Namespace, Interface, InterfaceRequest string }{name, namespace, iface, ""})
		}
	}
	var out []attachment
	for i, r := range requests {
		iface := cmp.Or(strings.TrimSpace(r.Interface), r.InterfaceRequest, fmt.Sprint("net", i+1))
		network, ok := networkNamed(cmp.Or(strings.TrimSpace(r.Namespace), p.Namespace)+"/"+r.Name, "")
		if ok && len(iface) <= 15 {
			out = append(out, attachment{iface: iface, network: network})
		}
	}
	return out, true
}

func statusOf(p *corev1.Pod) string {
	raw, ok := p.Annotations["k8s.v1.cni.cncf.io/network-status"]
	if !ok {
		raw = p.Annotations["k8s.v1.cni.cncf.io/networks-status"]
	}
	return strings.TrimSpace(raw)
}

// attachmentsOf reads a pod's network status. It is false when that cannot be read.
func attachmentsOf(p *corev1.Pod) ([]attachment, bool) {
	raw := statusOf(p)
	if raw == "" {
		return nil, true
	}
	var statuses []struct {
		Name, Interface string
		IPs             []string
	}
	if err := json.Unmarshal([]byte(raw), &statuses); err != nil {
		return nil, false
	}
	var out []attachment
	for _, s := range statuses {
		network, ok := networkNamed(s.Name, p.Namespace)
		if !ok || s.Interface == "" || len(s.Interface) > 15 {
			continue
		}
		a := attachment{iface: s.Interface, network: network}
		for _, ip := range s.IPs {
			if addr, err := netip.ParseAddr(ip); err == nil {
				a.addrs = append(a.addrs, addr.Unmap().WithZone(""))
			}
		}
		out = append(out, a)
	}
	return out, true
}

// networkNamed reads "namespace/name" or, in the given namespace, "name". Blanks around a part do not belong to it.
func networkNamed(s, namespace string) (Key, bool) {
	parts := strings.Split(s, "/")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	if len(parts) == 1 {
		parts = []string{namespace, parts[0]}
	}
	if len(parts) != 2 || parts[0] == "" || parts[1] == "" || strings.ContainsAny(parts[0]+parts[1], "@, \t\n") {
		return Key{}, false
	}
	return Key{Namespace: parts[0], Name: parts[1]}, true
}

// networksOf returns the networks that a policy is for.
func networksOf(policy *mnpv1.MultiNetworkPolicy) []Key {
	var out []Key
	for _, s := range strings.Split(policy.Annotations["k8s.v1.cni.cncf.io/policy-for"], ",") {
		if n, ok := networkNamed(strings.TrimSpace(s), policy.Namespace); ok {
			out = append(out, n)
		}
	}
	return out
}

// pluginTypeOf returns the type of a network, that of the first plugin where there are several, empty when it cannot be
// read.
func pluginTypeOf(nad *netv1.NetworkAttachmentDefinition) string {
	var config struct {
		Type    string
		Plugins []struct{ Type string }
	}
	if err := json.Unmarshal([]byte(nad.Spec.Config), &config); err != nil {
		return ""
	}
	if config.Type == "" && len(config.Plugins) > 0 {
		return config.Plugins[0].Type
	}
	return config.Type
}

// speaksFor reports whether a pod is younger than the last edit of a definition, or than a definition that was never edited.
// Times are in seconds, and in the second of an edit nobody knows which was first. Cases without times are about other things.
func speaksFor(nad *netv1.NetworkAttachmentDefinition, p *corev1.Pod) bool {
	switch {
	case nad.CreationTimestamp.IsZero():
		return true
	case nad.Generation <= 1:
		return !p.CreationTimestamp.Before(&nad.CreationTimestamp)
	}
	for _, m := range nad.ManagedFields {
		if m.Time != nil && !m.Time.Before(&p.CreationTimestamp) {
			return false
		}
	}
	return len(nad.ManagedFields) > 0
}
