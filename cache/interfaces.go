package cache

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// interfaceNameMax is IFNAMSIZ without the NUL.
// The kernel refuses a longer name.
const interfaceNameMax = 15

// defaultInterface is the interface of the cluster's own network, in every pod.
const defaultInterface = "eth0"

// entry is an interface of a pod on a network.
// Entries become attachments when their networks are known.
type entry struct {
	iface   string
	network Key
	addrs   []netip.Addr // sorted, unmapped, without zone
}

// reading has all that the annotations of a pod say about its interfaces.
type reading struct {
	known    bool    // the interfaces are known: an annotation could be read, or the interfaces from before are kept
	attached bool    // the pod has a status that can be read
	overflow bool    // the pod has more interfaces than the limit
	entries  []entry // sorted by interface and network
	problems policy.Problems
}

// readInterfaces reads the network status and the requested networks of a pod. before is the state that the same pod had,
// noState for a new pod.
//
// Isolation covers every interface that either of the two names: a pod's first packet may come before its status, and whoever
// may write the pod can write a status that leaves a network out. So a status adds interfaces and addresses, and takes no
// requested interface away. If the two give the same interface to different networks, the interface belongs to both networks.
// While either of the two cannot be read, the interfaces from before stay, without their addresses.
// The requested networks are read for a local pod only; see NewPod.
// A worked example: the request is "a/one" and the status has net1 on b/two. Then net1 is on both networks, and
// policies for either isolate it; its addresses count on b/two only.
func readInterfaces(o Pod, local bool, before *podState, limits *policy.Limits) reading {
	var r reading
	status, statusOK := parseStatus(o, &r.problems)
	r.attached = statusOK && o.hasStatus()
	requested, requestOK := parseRequests(o, &r.problems)
	r.known = r.attached || requestOK && (statusOK || o.Requested != "")
	// Interfaces from before stay isolated while an annotation is unreadable. Their addresses do not stay: permission
	// needs readable input.
	if (!statusOK || !requestOK) && local && before.known {
		r.known = true
		for _, a := range before.attachments {
			requested = append(requested, entry{iface: a.iface, network: a.network.key})
		}
	}
	r.entries = mergeEntries(append(status, requested...))
	r.bound(limits)
	r.noteLabels(o, limits)
	return r
}

// noteLabels notes labels that exceed their limit.
func (r *reading) noteLabels(o Pod, limits *policy.Limits) {
	if o.CutLabels {
		r.problems.Add("metadata.labels", "exceed the limit pod-label-bytes=%d, so the pod is nobody's peer, and every policy of its "+
			"namespace that is for a network of the pod selects it (--limit)", limits.PodLabelBytes)
	}
}

// bound applies the limits. The interface of the cluster's network is kept first, since a pod without it is cut off.
// The kept interfaces do not depend on the order in the annotation.
func (r *reading) bound(limits *policy.Limits) {
	if len(r.entries) > limits.PodInterfaces {
		r.overflow = true
		slices.SortStableFunc(r.entries, func(a, b entry) int { return cmp.Compare(rank(a), rank(b)) })
		r.entries = slices.Clip(r.entries[:limits.PodInterfaces])
		slices.SortStableFunc(r.entries, entry.compare)
		r.problems.Add(annotationField(StatusAnnotation), "names more interfaces than the limit pod-interfaces=%d, so policies "+
			"isolate every other interface as well, and allow nothing there (--limit)", limits.PodInterfaces)
	}
	// All interfaces share the limit of addresses, in the order of their names.
	left, cut := limits.PodAddresses, false
	for i := range r.entries {
		e := &r.entries[i]
		cut = cut || len(e.addrs) > left
		e.addrs = e.addrs[:min(len(e.addrs), left)]
		left -= len(e.addrs)
	}
	if cut {
		r.problems.Add(annotationField(StatusAnnotation), "names more addresses than the limit pod-addresses=%d, so no policy "+
			"allows the others as a peer (--limit)", limits.PodAddresses)
	}
}

// rank sorts the interface of the cluster's network in front of all others.
func rank(e entry) int {
	if e.iface == defaultInterface {
		return 0
	}
	return 1
}

// dropAddresses removes all addresses, so that the pod is nobody's peer.
// It applies to announced pods, pods without a node and pods with cut labels.
func (r *reading) dropAddresses() {
	for i := range r.entries {
		r.entries[i].addrs = nil
	}
}

// annotationField returns the path of an annotation in a Problem.
func annotationField(name string) string { return "metadata.annotations[" + name + "]" }

// parseStatus reads a network status. It skips items that name no interface or no network. An invalid name or address
// contributes nothing and is a problem. It returns false if the status as a whole cannot be read.
func parseStatus(o Pod, ps *policy.Problems) (entries []entry, ok bool) {
	if !o.hasStatus() {
		return nil, true
	}
	field := annotationField(o.StatusField)
	var list []struct {
		Name      string   `json:"name"`
		Interface string   `json:"interface"`
		IPs       []string `json:"ips"`
	}
	if err := json.Unmarshal([]byte(o.Status), &list); err != nil {
		ps.Add(field, "cannot be read: %s", policy.Quote(policy.Words(err)))
		return nil, false
	}
	for _, s := range list {
		if s.Name == "" || s.Interface == "" {
			continue
		}
		network, valid := policy.ParseNetwork(s.Name, o.Namespace)
		if !valid {
			ps.Add(field, "%s is not the name of a network", policy.Quote(s.Name))
			continue
		}
		if !isInterfaceName(s.Interface) {
			ps.Add(field, "%s is not the name of an interface", policy.Quote(s.Interface))
			continue
		}
		e := entry{iface: s.Interface, network: network}
		for _, ip := range s.IPs {
			addr, err := netip.ParseAddr(ip)
			if err != nil {
				ps.Add(field, "interface %s: %s is not an IP address", s.Interface, policy.Quote(ip))
				continue
			}
			e.addrs = append(e.addrs, addr.Unmap().WithZone(""))
		}
		entries = append(entries, e)
	}
	return entries, true
}

// compare orders entries by interface and network.
// The order of a pod's attachments follows from it.
func (e entry) compare(f entry) int {
	return cmp.Or(cmp.Compare(e.iface, f.iface), policy.CompareKeys(e.network, f.network))
}

// mergeEntries sorts entries by interface and network, and joins the entries for the same interface and network.
func mergeEntries(entries []entry) []entry {
	slices.SortStableFunc(entries, entry.compare)
	merged := entries[:0]
	for _, e := range entries {
		if n := len(merged); n > 0 && merged[n-1].compare(e) == 0 {
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

// isInterfaceName reports whether the kernel accepts the name (dev_valid_name).
func isInterfaceName(s string) bool {
	return s != "" && len(s) <= interfaceNameMax && s != "." && s != ".." &&
		!strings.ContainsFunc(s, func(r rune) bool {
			return r == '/' || r == ':' || unicode.IsSpace(r) || unicode.IsControl(r)
		})
}
