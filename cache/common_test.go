package cache

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/custom"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

func customRules(t *testing.T, f sets.Family, lines ...string) custom.Rules {
	t.Helper()
	r, err := custom.Parse("file", strings.NewReader(strings.Join(lines, "\n")), f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func prefixes(list ...string) sets.Addrs {
	var a sets.Addrs
	for _, p := range list {
		a = a.Insert(sets.PrefixRange(netip.MustParsePrefix(p)))
	}
	return a
}

func commonOptions(t *testing.T) Options {
	o := testOptions()
	o.AcceptICMP = true
	o.Ingress = Common{
		Sources:      prefixes("10.0.0.0/8", "fe80::/10"),
		Destinations: prefixes("ff00::/8"),
		V4:           customRules(t, sets.V4, "tcp dport { 80, 90 } accept comment web", "drop"),
		V6:           customRules(t, sets.V6, "# nothing"),
	}
	o.Egress.V6 = customRules(t, sets.V6, "udp sport { 80, 90 } accept")
	return o
}

// TestCommon: what the user wants of all pods is in their tables in the order that decides: neighbor discovery, ICMP,
// prefixes, custom rules; and only where a pod is isolated.
func TestCommon(t *testing.T) {
	c := New(commonOptions(t))
	for _, f := range []func(){
		func() { upsert(c, model.NewNamespace("default", "")) },
		func() { upsert(c, model.NewNAD("net-a", "macvlan")) },
		func() { upsert(c, model.NewPod("both", "app=both", "net1 net-a 10.0.0.1")) },
		func() { upsert(c, model.NewPod("in", "app=in", "net1 net-a 10.0.0.2")) },
		func() {
			upsert(c, model.NewPolicy("both", "net-a", "{podSelector: {matchLabels: {app: both}}, policyTypes: [Ingress, Egress]}"))
		},
		func() {
			upsert(c, model.NewPolicy("in", "net-a", "{podSelector: {matchLabels: {app: in}}, policyTypes: [Ingress]}"))
		},
	} {
		f()
	}
	both, in := ruleset(c, "both"), ruleset(c, "in")
	set := customRules(t, sets.V4, "th dport { 80, 90 }").Sets[0].Name
	const igmp = "ip daddr 224.0.0.0/4 meta l4proto igmp accept"
	want := map[string][]string{
		"common-ingress": {
			"icmpv6 type 130-136 accept", "icmpv6 type mld2-listener-report accept", igmp, "meta l4proto icmp accept",
			"ip saddr @allow-ingress-source-v4 accept", "ip6 saddr @allow-ingress-source-v6 accept",
			"ip6 daddr @allow-ingress-destination-v6 accept", "meta nfproto ipv4 jump custom-v4-ingress",
		},
		"custom-v4-ingress": {"tcp dport @" + set + " accept # web", "drop # "},
		"common-egress": {
			"icmpv6 type 130-136 accept", "icmpv6 type mld2-listener-report accept", igmp, "meta l4proto icmp accept",
			"meta nfproto ipv6 jump custom-v6-egress",
		},
		"custom-v6-egress": {"udp sport @" + set + " accept # "},
	}
	got := map[string][]string{}
	for _, chain := range both.Chains {
		for _, r := range chain.Rules {
			switch {
			case strings.HasPrefix(chain.Name, "common-"):
				got[chain.Name] = append(got[chain.Name], r.Text())
			case strings.HasPrefix(chain.Name, "custom-"):
				got[chain.Name] = append(got[chain.Name], r.Text()+" # "+r.Comment)
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if names := setNames(both); !slices.Equal(names, []string{
		"allow-ingress-destination-v6", "allow-ingress-source-v4", "allow-ingress-source-v6", set,
	}) {
		t.Errorf("sets of a pod isolated in both directions: %v", names)
	}
	for _, chain := range in.Chains {
		if strings.HasSuffix(chain.Name, "-egress") {
			t.Errorf("a pod that is isolated on ingress has %s", chain.Name)
		}
		if strings.HasPrefix(chain.Name, "custom-") && !slices.Contains(both.Chains, chain) {
			t.Errorf("%s is not the same chain for two pods", chain.Name)
		}
	}
	for _, s := range in.Sets {
		if !slices.Contains(both.Sets, s) {
			t.Errorf("%s is not the same set for two pods", s.Name)
		}
	}
}

func setNames(rs engine.Ruleset) []string {
	var names []string
	for _, s := range rs.Sets {
		names = append(names, s.Name)
	}
	return names
}

// TestTrial: the table has every kind of set, the chains that all pods share and chains of policies. Otherwise the kernel
// could refuse in every pod what it was not asked about at the start.
func TestTrial(t *testing.T) {
	o := commonOptions(t)
	o.RevokeEstablished, o.PolicyCounters = true, true
	rs := Trial(o)[engine.Inet]
	kinds := map[string]int{}
	for _, s := range rs.Sets {
		kind := fmt.Sprintf("%T", s.Elements)
		switch e := s.Elements.(type) {
		case engine.Addrs:
			kind += fmt.Sprint(e.Family)
			if e.Addrs.IsEmpty() {
				t.Errorf("%s is empty", s.Name)
			}
		case engine.Hosts:
			kind += fmt.Sprint(e.Family)
			if e.Count == 0 {
				t.Errorf("%s is empty", s.Name)
			}
		case engine.Endpoints:
			kind += fmt.Sprint(e.Family)
			if e.Endpoints.Len(e.Family) == 0 {
				t.Errorf("%s is empty", s.Name)
			}
		}
		kinds[kind]++
	}
	for _, kind := range []string{"engine.Addrsv4", "engine.Addrsv6", "engine.Hostsv4", "engine.Hostsv6", "engine.Endpointsv4", "engine.Endpointsv6", "engine.Ports", "engine.Numbers"} {
		if kinds[kind] == 0 {
			t.Errorf("no set of kind %s in %v", kind, kinds)
		}
	}
	var names []string
	for _, chain := range rs.Chains {
		names = append(names, chain.Name)
	}
	for _, want := range []string{"prerouting", "output", "ingress-net1", "egress-net1", "common-egress", "common-ingress", "custom-v4-ingress", "replies-common-ingress"} {
		if !slices.Contains(names, want) {
			t.Errorf("no chain %s in %v", want, names)
		}
	}
}
