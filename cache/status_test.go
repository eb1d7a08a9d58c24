package cache

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func FuzzStatus(f *testing.F) {
	for _, raw := range []string{
		"", "[]", "{}", "null", "[null]", `[{"name":"a/b","interface":"net1","ips":["10.0.0.1","::1","x"],"default":true}]`,
		`[{"name":"a","interface":"net1"},{"name":"a","interface":"net1","ips":["::ffff:1.2.3.4","fe80::1%x"]}]`, `[{"ips":1}]`,
	} {
		f.Add("default", raw)
	}
	f.Fuzz(func(t *testing.T, namespace, raw string) {
		entries, ps, ok := parseStatus(namespace, "f", raw)
		if !ok && (len(entries) > 0 || len(ps) != 1) {
			t.Errorf("%v, %v of what cannot be read", entries, ps)
		}
		if !slices.IsSortedFunc(entries, func(a, b statusEntry) int {
			return strings.Compare(a.iface+"\x00"+a.network.Namespace+"\x00"+a.network.Name, b.iface+"\x00"+b.network.Namespace+"\x00"+b.network.Name)
		}) {
			t.Errorf("not sorted: %v", entries)
		}
		for _, e := range entries {
			if !isInterfaceName(e.iface) || e.network.Namespace == "" || e.network.Name == "" {
				t.Errorf("entry %+v", e)
			}
			for i, a := range e.addrs {
				if !a.IsValid() || a.Is4In6() || a.Zone() != "" || i > 0 && !e.addrs[i-1].Less(a) {
					t.Errorf("addresses %v", e.addrs)
				}
			}
		}
		again, _, _ := parseStatus(namespace, "f", raw)
		if diff := cmp.Diff(entries, again, cmp.AllowUnexported(statusEntry{}), cmp.Comparer(func(a, b statusEntry) bool {
			return a.iface == b.iface && a.network == b.network && slices.Equal(a.addrs, b.addrs)
		})); diff != "" {
			t.Errorf("read twice:\n%s", diff)
		}
	})
}

// FuzzExpected reads the networks that a pod asks for: what cannot be read, or is no name, announces nothing.
func FuzzExpected(f *testing.F) {
	for _, raw := range []string{
		"", "a", "a/b@net1, c", "a@", "@", "/", ",", "a/b/c@d@e", "[]", "[null]", `[{"name":"a","interface":"net1"},{"name":"a"}]`,
		`[{"name":"a","namespace":"b","interfaceRequest":"eth9"}]`, `{"name":"a"}`, `"a"`, `[{"name":1}]`, "a@net\x00", "a@" + strings.Repeat("n", 16),
	} {
		f.Add("default", raw)
	}
	f.Fuzz(func(t *testing.T, namespace, raw string) {
		entries, ps, ok := expectedEntries(namespace, raw)
		if !ok && (len(entries) > 0 || len(ps) != 1) {
			t.Errorf("%v, %v of what cannot be read", entries, ps)
		}
		if ok && strings.TrimSpace(raw) != "" && len(entries)+len(ps) == 0 && !strings.ContainsAny(raw, "[n") { // an empty list, or null
			t.Errorf("neither networks nor problems of %q", raw)
		}
		for i, e := range entries {
			if !isInterfaceName(e.iface) || e.network.Namespace == "" || e.network.Name == "" || len(e.addrs) > 0 {
				t.Errorf("entry %+v", e)
			}
			if i > 0 && entries[i-1].iface > e.iface {
				t.Errorf("not sorted: %v", entries)
			}
		}
	})
}

func FuzzPolicyFor(f *testing.F) {
	for _, value := range []string{"", "a", "a/b", " a , b/c,", "a/b/c", "/", "a@net1", "ä/ö", "a\x00b"} {
		f.Add("default", value)
	}
	f.Fuzz(func(t *testing.T, namespace, value string) {
		var ps problems
		keys := parsePolicyFor(namespace, map[string]string{policyForAnnotation: value}, &ps)
		if len(keys)+len(ps) == 0 {
			t.Error("neither networks nor problems")
		}
		for i, k := range keys {
			if i > 0 && compareKeys(keys[i-1], k) >= 0 {
				t.Errorf("not sorted, or twice: %v", keys)
			}
			if again, ok := parseNetworkName(k.String(), "other"); !ok || again != k {
				t.Errorf("%v is read as %v", k, again)
			}
		}
	})
}
