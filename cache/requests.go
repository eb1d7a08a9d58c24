package cache

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// networkRequest is a network that a pod requests (NetworkSelectionElement of the Multi-Network specification).
type networkRequest struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Interface string `json:"interface"`
	// InterfaceRequest is an older name of Interface; Multus still reads it.
	InterfaceRequest string `json:"interfaceRequest"`
}

// parseRequests reads the networks that a pod requests, as the interfaces that Multus makes of them, without addresses.
// An interface without a name is called net and its place in the list, from 1 on. An invalid request keeps its place,
// contributes nothing and is a problem. It returns false if the annotation as a whole cannot be read.
// An example: "net-a, b/net-c@data" in the namespace shop makes net1 on shop/net-a and data on b/net-c.
func parseRequests(o Pod, ps *policy.Problems) (entries []entry, ok bool) {
	if strings.TrimSpace(o.Requested) == "" {
		return nil, true
	}
	field := annotationField(NetworksAnnotation)
	requests, err := splitRequests(o.Requested)
	if err != nil {
		ps.Add(field, "cannot be read: %s", policy.Quote(policy.Words(err)))
		return nil, false
	}
	for i, r := range requests {
		if r == nil {
			ps.Add(field, "entry %d is null", i)
			continue
		}
		if r.Namespace == "" {
			r.Namespace = o.Namespace
		}
		network, valid := policy.ParseNetwork(r.Namespace+"/"+r.Name, "")
		if !valid {
			ps.Add(field, "%s is not the name of a network", policy.Quote(r.Namespace+"/"+r.Name))
			continue
		}
		iface := r.interfaceAt(i + 1)
		if !isInterfaceName(iface) {
			ps.Add(field, "%s is not the name of an interface", policy.Quote(iface))
			continue
		}
		entries = append(entries, entry{iface: iface, network: network})
	}
	return entries, true
}

// splitRequests reads the annotation in either of its two forms, which it distinguishes as Multus does: a JSON list, or
// names as "namespace/name@interface" with commas between them.
// The texts of names are not checked here.
func splitRequests(raw string) ([]*networkRequest, error) {
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

// interfaceAt returns the name of the interface for the request at a place in the list.
// place counts from 1, invalid entries included.
func (r *networkRequest) interfaceAt(place int) string {
	switch {
	case r.Interface != "":
		return r.Interface
	case r.InterfaceRequest != "":
		return r.InterfaceRequest
	}
	return fmt.Sprintf("net%d", place)
}
