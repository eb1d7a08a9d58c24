package engine

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/nft"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Stats of a namespace sum up every count of both tables.
func TestStats(t *testing.T) {
	var one, two Stats
	for i := range reflect.TypeFor[Stats]().NumField() {
		reflect.ValueOf(&one).Elem().Field(i).SetUint(1)
		reflect.ValueOf(&two).Elem().Field(i).SetUint(2)
	}
	n := Namespace{}
	for f := range n.engines {
		n.engines[f] = &Engine{stats: one}
	}
	if got := n.Stats(); got != two {
		t.Errorf("%+v", got)
	}
}

// bothTables have the same sets. The table of family bridge does without connection tracking, which not every kernel has there.
func bothTables(peers sets.Addrs, port uint16) Tables {
	inet := isolated(peers, port)
	bridge := Ruleset{Sets: inet.Sets}
	for _, c := range inet.Chains {
		rules := slices.DeleteFunc(slices.Clone(c.Rules), func(r Rule) bool { return strings.HasPrefix(r.Text(), "ct ") })
		bridge.Chains = append(bridge.Chains, &Chain{Name: c.Name, Hook: c.Hook, Rules: rules})
	}
	return Tables{Inet: inet, Bridge: bridge}
}

func namespace(t *testing.T, h *lab.Host, own bool) *Namespace {
	t.Helper()
	n, err := OpenNamespace("ns/pod", h.NetNS(), Options{Own: own})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func (n *Namespace) mustApply(t *testing.T, want Tables) {
	t.Helper()
	if err := n.Apply(t.Context(), want); err != nil {
		t.Fatal(err)
	}
}

// TestNamespace: a change of a member is one batch with one element for each table, and none of them makes the other table
// unknown. A restart takes both over; what others change in either is repaired; both go together.
func TestNamespace(t *testing.T) {
	features, err := Probe()
	if err != nil {
		t.Fatal(err)
	}
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprintf("owner %t", own), func(t *testing.T) {
			if own && !features.Owner {
				t.Skip("SKIPPED: this kernel has no tables that have an owner and outlive it (6.9)")
			}
			testNamespace(t, own)
		})
	}
}

func testNamespace(t *testing.T, own bool) {
	h, err := lab.ForTest(t).Host("pod")
	if err != nil {
		t.Fatal(err)
	}
	n := namespace(t, h, own)
	peers := parseAddrs("10.0.0.1", "fd00::1")
	n.mustApply(t, bothTables(peers, 80))
	first := n.Stats()
	for i := range 20 {
		peers = peers.Insert(sets.Single(netip.AddrFrom4([4]byte{10, 1, 0, byte(2 * i)})))
		next := bothTables(peers, 80)
		for f := range next {
			next[f].Chains = n.engines[f].have.ruleset.Chains
		}
		n.mustApply(t, next)
	}
	now := n.Stats()
	const batches, messages = 40, 40 * 3 // begin, element, end
	if now.Batches-first.Batches != batches || now.Messages-first.Messages != messages || now.ReadBacks != 2 || now.Restarts != 0 {
		t.Errorf("20 members: first %+v, then %+v", first, now)
	}
	if changed, err := n.Changed(t.Context()); changed || err != nil {
		t.Errorf("changed %t, %v", changed, err)
	}
	want := bothTables(peers, 80)
	for _, f := range expr.TableFamilies {
		var text strings.Builder
		if err := Render(&text, f, want[f]); err != nil {
			t.Fatal(err)
		}
		listing := nft.WithoutOwner(nft.MustRun(t, h, "", "--stateless", "list", "table", f.String(), TableName))
		if diff := cmp.Diff(normal(text.String()), normal(listing)); diff != "" {
			t.Errorf("%s (-rendered +nft):\n%s", f, diff)
		}
	}
	counts, err := n.Counts()
	if err != nil || !slices.ContainsFunc(counts, func(c RuleCount) bool { return c.Family == Bridge && c.HasCounter }) {
		t.Errorf("counts: %+v, %v", counts, err)
	}
	if !own {
		nft.MustRun(t, h, "flush chain bridge multi_networkpolicy ingress-net1", "--file", "-")
		if changed, err := n.Changed(t.Context()); !changed || err != nil {
			t.Errorf("changed %t, %v", changed, err)
		}
		if found, err := n.Check(t.Context()); found != Repaired || err != nil {
			t.Errorf("found %v, %v", found, err)
		}
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n.engines[Inet].transport, err = nfnl.Open(h.NetNS()) // for the end of the test
	if err != nil {
		t.Fatal(err)
	}
	restarted := namespace(t, h, own)
	restarted.mustApply(t, want)
	if s := restarted.Stats(); s.Batches > 2 || !own && s.Batches > 0 || s.Refused > 0 { // the new owner takes both over
		t.Errorf("restart: %+v", s)
	}
	restarted.mustApply(t, Tables{})
	if left := listTable(t, h); left != "" {
		t.Errorf("left: %s", left)
	}
}

// TestOneTableFails: the other table is applied all the same.
func TestOneTableFails(t *testing.T) {
	h, err := lab.ForTest(t).Host("pod")
	if err != nil {
		t.Fatal(err)
	}
	n := namespace(t, h, false)
	want := bothTables(parseAddrs("10.0.0.1"), 80)
	good := want[Inet]
	want[Inet] = NewRuleset(nil, []*Chain{{Name: "bad", Rules: []Rule{{Statements: []expr.Statement{expr.Jump("nowhere")}}}}})
	if err := n.Apply(t.Context(), want); err == nil {
		t.Error("no error")
	}
	if out := nft.MustRun(t, h, "", "list", "tables"); out != "table bridge multi_networkpolicy\n" {
		t.Errorf("tables: %s", out)
	}
	want[Inet] = good
	n.mustApply(t, want)
}

// TestHasBridgePort finds a port of a bridge by its names, and no other interface.
func TestHasBridgePort(t *testing.T) {
	h, err := lab.ForTest(t).Host("pod", netip.MustParsePrefix("10.0.0.1/24"))
	if err != nil {
		t.Fatal(err)
	}
	n := namespace(t, h, false)
	has := func(want bool, names ...string) {
		t.Helper()
		if is, err := n.HasBridgePort(names...); is != want || err != nil {
			t.Errorf("%v: %t, %v", names, is, err)
		}
	}
	has(false, "net1", "net1-nic", "lo", "net7")
	if _, err := h.VirtualMachine("net1"); err != nil {
		t.Fatal(err)
	}
	has(true, "net1", "net1-nic")
	has(false, "net1", "k6t-net1")
	err = h.Do(func() error {
		link, err := netlink.LinkByName("net1-nic")
		if err != nil {
			return err
		}
		return netlink.LinkSetNoMaster(link)
	})
	if err != nil {
		t.Fatal(err)
	}
	has(false, "net1", "net1-nic")
}

// TestBridgePort has the examples of KubeVirt's own test of the names.
func TestBridgePort(t *testing.T) {
	for iface, want := range map[string]string{"net1": "net1-nic", "eth0": "eth0-nic", "pod16477688c0e": "16477688c0e-nic"} {
		if got := BridgePort(iface); got != want {
			t.Errorf("%s: %s, want %s", iface, got, want)
		}
	}
}

// Memory, and time, of the second table of a pod that has no bridge; of the look for a bridge.
func BenchmarkSecondTable(b *testing.B) {
	l := lab.ForTest(b)
	drop := []Rule{{Statements: []expr.Statement{expr.ARP(), expr.Accept()}}, {Statements: []expr.Statement{expr.Counter(), expr.Drop()}}}
	base := func(h Hook, d Direction) *Chain {
		c, chain := &Chain{Name: string(h), Hook: h}, expr.Goto(InterfaceChain(d, "net1"))
		for _, name := range []string{"net1", "net1-nic"} {
			c.Rules = append(c.Rules, Rule{Statements: []expr.Statement{d.OnInterface(name), chain}},
				Rule{Statements: []expr.Statement{d.OnInterfaces(name + ".*"), chain}})
		}
		return c
	}
	table := NewRuleset(nil, []*Chain{
		base(HookPrerouting, Ingress), base(HookForward, Egress), base(HookOutput, Egress),
		{Name: "ingress-net1", Rules: drop}, {Name: "egress-net1", Rules: drop},
	})
	b.Run("make and remove", func(b *testing.B) {
		e := bare(b, l)
		e.family = Bridge
		for b.Loop() {
			if err := e.Apply(context.Background(), table); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := e.Apply(context.Background(), Ruleset{}); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		b.ReportMetric(float64(table.Memory()), "B/table")
	})
	b.Run("look", func(b *testing.B) {
		h, err := l.Host("pod")
		if err != nil {
			b.Fatal(err)
		}
		n, err := OpenNamespace("pod", h.NetNS(), Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer n.Close()
		for b.Loop() {
			if _, err := n.HasBridgePort("net1", "net1-nic"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
