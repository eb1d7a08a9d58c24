package oracle

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

// IsReadable reports whether the network status and the requested networks of a pod can be read.
func IsReadable(p *corev1.Pod) bool {
	_, readable := attachmentsOf(p)
	_, clear := requestedBy(p)
	return readable && clear
}

// requestedBy reads the requested networks of a pod: a JSON list, or the short form "ns/network@iface,network". The
// interface of an entry without a name is "net" and the place of the entry in the list, as Multus names it. The result
// is false when the annotation cannot be read.
func requestedBy(p *corev1.Pod) ([]attachment, bool) {
	raw := strings.TrimSpace(p.Annotations["k8s.v1.cni.cncf.io/networks"])
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
	// An entry that is not valid is left out; its place in the list still counts.
	for i, r := range requests {
		iface := cmp.Or(strings.TrimSpace(r.Interface), r.InterfaceRequest, fmt.Sprint("net", i+1))
		network, ok := NetworkNamed(cmp.Or(strings.TrimSpace(r.Namespace), p.Namespace)+"/"+r.Name, "")
		// A name of an interface has at most 15 bytes (IFNAMSIZ - 1).
		if ok && len(iface) <= 15 {
			out = append(out, attachment{iface: iface, network: network})
		}
	}
	return out, true
}

// statusOf returns the network status of a pod. The older annotation counts only if the newer annotation is missing.
// An annotation that is present and empty counts as present.
func statusOf(p *corev1.Pod) string {
	raw, ok := p.Annotations["k8s.v1.cni.cncf.io/network-status"]
	if !ok {
		raw = p.Annotations["k8s.v1.cni.cncf.io/networks-status"]
	}
	return strings.TrimSpace(raw)
}

// attachmentsOf reads the network status of a pod. The result is false when the status cannot be read. An empty status
// is readable: the pod has no interfaces.
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
		network, ok := NetworkNamed(s.Name, p.Namespace)
		if !ok || s.Interface == "" || len(s.Interface) > 15 {
			continue
		}
		a := attachment{iface: s.Interface, network: network}
		for _, ip := range s.IPs {
			if addr, err := netip.ParseAddr(ip); err == nil {
				// An address may be written as IPv4 in IPv6, or with a zone. Packets have neither.
				a.addrs = append(a.addrs, addr.Unmap().WithZone(""))
			}
		}
		out = append(out, a)
	}
	return out, true
}

// NetworkNamed reads "namespace/name", or "name" in the given namespace. Blanks around a part are ignored, blanks
// inside are not valid.
func NetworkNamed(s, namespace string) (Key, bool) {
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

// networksOf returns the networks that a policy applies to. Names that are not valid are left out.
// A policy without the annotation has none.
func networksOf(policy *mnpv1.MultiNetworkPolicy) []Key {
	var out []Key
	for _, s := range strings.Split(policy.Annotations["k8s.v1.cni.cncf.io/policy-for"], ",") {
		if n, ok := NetworkNamed(strings.TrimSpace(s), policy.Namespace); ok {
			out = append(out, n)
		}
	}
	return out
}

// PluginTypeOf returns the CNI type of a network: the type of the configuration, or else of the first plugin of its
// chain. It is empty when the configuration cannot be read or names no type.
func PluginTypeOf(nad *netv1.NetworkAttachmentDefinition) string {
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

// speaksFor reports whether a definition is sure to describe the interfaces of a pod: the pod is younger than the last
// edit, or than a definition that was never edited. Times have a resolution of a second, so in the second of an edit
// the order is unknown. Cases without times are about other behavior.
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
