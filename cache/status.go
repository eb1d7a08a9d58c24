package cache

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
)

// Where Multus says what a pod is attached to. The second is what older versions wrote.
const (
	statusAnnotation       = "k8s.v1.cni.cncf.io/network-status"
	legacyStatusAnnotation = "k8s.v1.cni.cncf.io/networks-status"
)

// interfaceNameMax is IFNAMSIZ without the NUL.
const interfaceNameMax = 15

// statusEntry is one interface of a pod on one network.
type statusEntry struct {
	iface   string
	network Key
	addrs   []netip.Addr // sorted, unmapped, without zone
}

// statusOf returns a pod's network status as it is written, and the field it is in.
func statusOf(pod *corev1.Pod) (field, raw string) {
	name := statusAnnotation
	raw, ok := pod.Annotations[name]
	if !ok {
		if legacy, ok := pod.Annotations[legacyStatusAnnotation]; ok {
			name, raw = legacyStatusAnnotation, legacy
		}
	}
	return "metadata.annotations[" + name + "]", raw
}

// parseStatus reads a network status. Entries for the same interface and network are one, with the addresses of all;
// the result is sorted, so that the order of entries means nothing. Entries that name no interface or no network are
// passed over. An address or interface name that is none contributes nothing and is a problem. It is false when the
// whole cannot be read.
func parseStatus(namespace, field, raw string) (entries []statusEntry, ps problems, ok bool) {
	if strings.TrimSpace(raw) == "" {
		return nil, nil, true
	}
	var list []struct {
		Name      string   `json:"name"`
		Interface string   `json:"interface"`
		IPs       []string `json:"ips"`
	}
	if err := json.Unmarshal([]byte(raw), &list); err != nil {
		ps.add(field, "cannot be read: %v", err)
		return nil, ps, false
	}
	for _, s := range list {
		if s.Name == "" || s.Interface == "" {
			continue
		}
		network, valid := parseNetworkName(s.Name, namespace)
		if !valid {
			ps.add(field, "%q is not the name of a network", s.Name)
			continue
		}
		if !isInterfaceName(s.Interface) {
			ps.add(field, "%q is not the name of an interface", s.Interface)
			continue
		}
		e := statusEntry{iface: s.Interface, network: network}
		for _, ip := range s.IPs {
			addr, err := netip.ParseAddr(ip)
			if err != nil {
				ps.add(field, "interface %s: %q is not an IP address", s.Interface, ip)
				continue
			}
			e.addrs = append(e.addrs, addr.Unmap().WithZone(""))
		}
		entries = append(entries, e)
	}
	return mergeEntries(entries), ps, true
}

// mergeEntries sorts entries by interface and network and makes one of those that are for the same.
func mergeEntries(entries []statusEntry) []statusEntry {
	slices.SortStableFunc(entries, func(a, b statusEntry) int {
		return cmp.Or(cmp.Compare(a.iface, b.iface), compareKeys(a.network, b.network))
	})
	merged := entries[:0]
	for _, e := range entries {
		if n := len(merged); n > 0 && merged[n-1].iface == e.iface && merged[n-1].network == e.network {
			merged[n-1].addrs = append(merged[n-1].addrs, e.addrs...)
			continue
		}
		merged = append(merged, e)
	}
	for i := range merged {
		slices.SortFunc(merged[i].addrs, netip.Addr.Compare)
		merged[i].addrs = slices.Compact(merged[i].addrs)
	}
	return merged
}

// parseNetworkName reads "namespace/name", or "name" in the namespace given. It is strict about what could never name
// a network, and about nothing else: networks that are no NetworkAttachmentDefinition have free names.
func parseNetworkName(s, namespace string) (Key, bool) {
	if before, after, found := strings.Cut(s, "/"); found {
		namespace, s = before, after
	}
	if namespace == "" || s == "" || strings.Contains(namespace+s, "/") || strings.ContainsFunc(namespace+s, isNotInName) {
		return Key{}, false
	}
	return Key{Namespace: namespace, Name: s}, true
}

// isNotInName: an '@' is how the annotation that asks for networks appends the name of an interface. In a network's
// name it would match nothing, in silence.
func isNotInName(r rune) bool {
	return r == '@' || r == ',' || unicode.IsSpace(r) || unicode.IsControl(r)
}

// isInterfaceName says whether the kernel would take the name (dev_valid_name).
func isInterfaceName(s string) bool {
	return s != "" && len(s) <= interfaceNameMax && s != "." && s != ".." &&
		!strings.ContainsFunc(s, func(r rune) bool {
			return r == '/' || r == ':' || unicode.IsSpace(r) || unicode.IsControl(r)
		})
}
