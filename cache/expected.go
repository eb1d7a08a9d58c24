package cache

import (
	"encoding/json"
	"fmt"
	"strings"
)

// networksAnnotation is where a pod asks for networks, the Network Selection Annotation of the Multi-Network
// specification.
const networksAnnotation = "k8s.v1.cni.cncf.io/networks"

const networksField = "metadata.annotations[" + networksAnnotation + "]"

// networkRequest is one network that a pod asks for.
type networkRequest struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Interface string `json:"interface"`
	// InterfaceRequest is what Interface was called once; Multus still reads it.
	InterfaceRequest string `json:"interfaceRequest"`
}

// expectedEntries reads the networks that a pod asks for, as the interfaces that Multus makes of them, without
// addresses: it is a JSON list, or names as "namespace/name@interface" with commas between them. An interface without a
// name is called net and its place in the list, from 1 on. A request that cannot be understood has its place, contributes
// nothing and is a problem. It is false when the whole cannot be read. The result is sorted.
func expectedEntries(namespace, raw string) (entries []statusEntry, ps problems, ok bool) {
	if strings.TrimSpace(raw) == "" {
		return nil, nil, true
	}
	requests, err := parseRequests(raw)
	if err != nil {
		ps.add(networksField, "cannot be read: %v", err)
		return nil, ps, false
	}
	for i, r := range requests {
		if r == nil {
			ps.add(networksField, "entry %d is null", i)
			continue
		}
		if r.Namespace == "" {
			r.Namespace = namespace
		}
		network, valid := parseNetworkName(r.Namespace+"/"+r.Name, "")
		if !valid {
			ps.add(networksField, "%q is not the name of a network", r.Namespace+"/"+r.Name)
			continue
		}
		iface := r.interfaceAt(i + 1)
		if !isInterfaceName(iface) {
			ps.add(networksField, "%q is not the name of an interface", iface)
			continue
		}
		entries = append(entries, statusEntry{iface: iface, network: network})
	}
	return mergeEntries(entries), ps, true
}

// parseRequests tells the two forms apart as Multus does.
func parseRequests(raw string) ([]*networkRequest, error) {
	var requests []*networkRequest
	if strings.ContainsAny(raw, `[{"`) {
		return requests, json.Unmarshal([]byte(raw), &requests)
	}
	for item := range strings.SplitSeq(raw, ",") {
		r := &networkRequest{Name: strings.TrimSpace(item)}
		if namespace, name, found := strings.Cut(r.Name, "/"); found {
			r.Namespace, r.Name = strings.TrimSpace(namespace), strings.TrimSpace(name)
		}
		if name, iface, found := strings.Cut(r.Name, "@"); found {
			r.Name, r.Interface = strings.TrimSpace(name), strings.TrimSpace(iface)
		}
		requests = append(requests, r)
	}
	return requests, nil
}

func (r *networkRequest) interfaceAt(place int) string {
	switch {
	case r.Interface != "":
		return r.Interface
	case r.InterfaceRequest != "":
		return r.InterfaceRequest
	}
	return fmt.Sprintf("net%d", place)
}
