package cache

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// bridgeCluster has a policy for both directions of web, and a peer.
func bridgeCluster(t *testing.T, o Options, labels string) *Cache {
	t.Helper()
	c := New(o)
	upsert(c, model.NewPod("web", labels, "net1 net-a 10.0.0.1"))
	upsert(c, model.NewPeer("default/peer", "app=peer", "net1 default/net-a 10.0.0.2"))
	upsert(c, model.NewPolicy("p", "net-a", `{policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {app: peer}}}]}]}`))
	settle(c)
	return c
}

func tablesOf(t *testing.T, c *Cache) engine.Tables {
	t.Helper()
	target, ok := targetOf(c, "web")
	if !ok {
		t.Fatal("web is not known")
	}
	return target.Tables
}

func bridgeText(t *testing.T, c *Cache) string {
	t.Helper()
	var b strings.Builder
	if err := engine.Render(&b, engine.Bridge, tablesOf(t, c)[engine.Bridge]); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const droppingTable = `table bridge multi_networkpolicy {
	chain egress-net1 {
		meta protocol arp accept
		counter drop
	}

	chain forward {
		type filter hook forward priority -110; policy accept;
		oifname "net1" goto egress-net1
		oifname "net1-nic" goto egress-net1
		oifname "net1.*" goto egress-net1
		oifname "net1-nic.*" goto egress-net1
	}

	chain ingress-net1 {
		meta protocol arp accept
		counter drop
	}

	chain output {
		type filter hook output priority -110; policy accept;
		oifname "net1" goto egress-net1
		oifname "net1-nic" goto egress-net1
		oifname "net1.*" goto egress-net1
		oifname "net1-nic.*" goto egress-net1
	}

	chain prerouting {
		type filter hook prerouting priority -110; policy accept;
		iifname "net1" goto ingress-net1
		iifname "net1-nic" goto ingress-net1
		iifname "net1.*" goto ingress-net1
		iifname "net1-nic.*" goto ingress-net1
	}
}
`

// TestBridgeDrops: an unexpected bridge of a pod is closed. A change of a member does not change its table.
func TestBridgeDrops(t *testing.T) {
	c := bridgeCluster(t, testOptions(), "")
	if diff := cmp.Diff(droppingTable, bridgeText(t, c)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	before := tablesOf(t, c)
	upsert(c, model.NewPeer("default/more", "app=peer", "net1 default/net-a 10.0.0.3"))
	after := tablesOf(t, c)
	if slices.Equal(before[engine.Inet].Sets, after[engine.Inet].Sets) || !slices.Equal(before[engine.Bridge].Chains, after[engine.Bridge].Chains) {
		t.Errorf("a member more: %+v", after)
	}
	if names := ruleset(c, "web"); strings.Contains(render(t, names), "net1-nic") {
		t.Error("the table of family inet has a rule for the port of a bridge")
	}
	c.DeletePolicy(model.KeyOf("p"))
	if tables := tablesOf(t, c); !tables.IsEmpty() {
		t.Errorf("after the last policy: %+v", tables)
	}
}

// TestBridgeFull: a virtual machine has the policies in the bridge, with the same sets and chains. So has a pod whose bridge was
// found, and it keeps that.
func TestBridgeFull(t *testing.T) {
	for _, how := range []string{"label at the start", "label later", "found"} {
		for _, revoke := range []bool{false, true} {
			o := testOptions()
			o.RevokeEstablished = revoke
			labels := ""
			if how == "label at the start" {
				labels = "kubevirt.io=virt-launcher"
			}
			c := bridgeCluster(t, o, labels)
			id, _ := c.LocalPod(model.KeyOf("web"))
			switch how {
			case "label later":
				upsert(c, model.NewPod("web", "kubevirt.io=virt-launcher", "net1 net-a 10.0.0.1"))
				wantDirty(t, c, how, "web")
			case "found":
				c.SetBridged(id)
				wantDirty(t, c, how, "web")
				c.SetBridged(id)
				wantDirty(t, c, "found again")
			}
			tables := tablesOf(t, c)
			inet, bridge := tables[engine.Inet], tables[engine.Bridge]
			for _, s := range inet.Sets {
				if (s.Name == engine.ServedSet) == slices.Contains(bridge.Sets, s) {
					t.Errorf("%s: set %s", how, s.Name)
				}
			}
			for _, chain := range inet.Chains {
				name, _ := engine.ParseChain(chain.Name)
				shared := name.Kind == engine.KindPolicy
				if has := slices.Contains(bridge.Chains, chain); has != shared {
					t.Errorf("%s: chain %s is shared: %t", how, chain.Name, has)
				}
			}
			text := bridgeText(t, c)
			for _, want := range []string{
				"\t\tmeta protocol arp accept\n\t\tmeta protocol != ip meta protocol != ip6 counter drop\n\t\tjump common-ingress\n",
				"iifname \"net1-nic\" goto ingress-net1", "oifname \"net1-nic\" goto egress-net1", "icmpv6 type 130-136 accept",
			} {
				if !strings.Contains(text, want) {
					t.Errorf("%s: no %q in\n%s", how, want, text)
				}
			}
			for _, no := range []string{"self-", "rt ip", engine.ServedSet, "nfproto"} {
				if strings.Contains(text, no) {
					t.Errorf("%s: %q in\n%s", how, no, text)
				}
			}
		}
	}
}

// TestBridgeSupport: a kernel that cannot enforce policies in bridges drops there, or has no table; metrics and Events say so.
func TestBridgeSupport(t *testing.T) {
	for support, want := range map[BridgeSupport]string{BridgeStateful: "", BridgeDrops: "CONFIG_NF_CONNTRACK_BRIDGE", BridgeMissing: "CONFIG_NF_TABLES_BRIDGE"} {
		o := testOptions()
		o.Bridge = support
		c := bridgeCluster(t, o, "kubevirt.io=virt-launcher")
		text := bridgeText(t, c)
		if (support == BridgeDrops) != (text == droppingTable) || (support == BridgeMissing) != (text == "") {
			t.Errorf("support %d:\n%s", support, text)
		}
		s := c.Stats()
		if diff := cmp.Diff([]int64{b2i(support == BridgeStateful), b2i(support == BridgeDrops), b2i(support == BridgeMissing)},
			[]int64{s.BridgesEnforced, s.BridgesDropped, s.BridgesOpen}); diff != "" {
			t.Errorf("support %d: counts (-want +got):\n%s", support, diff)
		}
		var found []string
		for _, f := range c.Shortfalls() {
			if f.Reason == policy.BridgeNotEnforced {
				found = append(found, f.Problems[0].String())
			}
		}
		if (want == "") != (len(found) == 0) || want != "" && !strings.Contains(found[0], want) {
			t.Errorf("support %d: %v", support, found)
		}
	}
}

func b2i(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
