package cache

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// FuzzInterfaces reads the two annotations that say which interfaces a pod has: a text that cannot be read, or a name
// that is none, contributes nothing and is a problem.
func FuzzInterfaces(f *testing.F) {
	statuses := []string{
		"", "[]", "{}", "null", "[null]", `[{"name":"a/b","interface":"net1","ips":["10.0.0.1","::1","x"],"default":true}]`,
		`[{"name":"a","interface":"net1"},{"name":"a","interface":"net1","ips":["::ffff:1.2.3.4","fe80::1%x"]}]`, `[{"ips":1}]`,
	}
	requests := []string{
		"", "a", "a/b@net1, c", "a@", "@", "/", ",", "a/b/c@d@e", "[]", "[null]", `[{"name":"a","interface":"net1"},{"name":"a"}]`,
		`[{"name":"a","namespace":"b","interfaceRequest":"eth9"}]`, `{"name":"a"}`, `"a"`, `[{"name":1}]`, "a@net\x00", "a@" + strings.Repeat("n", 16),
	}
	for i, status := range statuses {
		f.Add("default", status, requests[i])
	}
	for i, request := range requests {
		f.Add("default", statuses[i%len(statuses)], request)
	}
	limits := policy.DefaultLimits()
	f.Fuzz(func(t *testing.T, namespace, status, requested string) {
		o := Pod{Key: Key{Namespace: namespace}, Status: status, StatusField: "f", Requested: requested}
		r := readInterfaces(o, true, noState, &limits)
		if !r.known && len(r.problems.List()) == 0 {
			t.Error("nothing can be read, and no problem says so")
		}
		if !slices.IsSortedFunc(r.entries, entry.compare) {
			t.Errorf("not sorted: %v", r.entries)
		}
		for _, e := range r.entries {
			if !isInterfaceName(e.iface) || e.network.Namespace == "" || e.network.Name == "" {
				t.Errorf("entry %+v", e)
			}
			for i, a := range e.addrs {
				if !a.IsValid() || a.Is4In6() || a.Zone() != "" || i > 0 && !e.addrs[i-1].Less(a) {
					t.Errorf("addresses %v", e.addrs)
				}
			}
		}
		var ps policy.Problems
		requests, ok := parseRequests(o, &ps)
		if !ok && (len(requests) > 0 || len(ps.List()) != 1) {
			t.Errorf("%v, %v of what cannot be read", requests, ps)
		}
		if !r.overflow { // every request is isolated
			for _, e := range requests {
				if !slices.ContainsFunc(r.entries, func(o entry) bool { return o.compare(e) == 0 }) {
					t.Errorf("%+v is requested, and is not among %v", e, r.entries)
				}
			}
		}
		again := readInterfaces(o, true, noState, &limits)
		if diff := cmp.Diff(r.entries, again.entries, cmp.Comparer(func(a, b entry) bool {
			return a.compare(b) == 0 && slices.Equal(a.addrs, b.addrs)
		})); diff != "" {
			t.Errorf("read twice:\n%s", diff)
		}
	})
}
