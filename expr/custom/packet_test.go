package custom_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/explain"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// server is the pod that policies isolate.
var server = cache.PodID{Key: cache.Key{Namespace: "default", Name: "server"}, UID: "1"}

// serverOnly is a cluster of a single pod. Its policy allows only TCP 80, in and out.
func serverOnly(t *testing.T, o cache.Options) *cache.Cache {
	t.Helper()
	o.Node, o.NetworkPlugins = "node", []string{"bridge"}
	c := cache.New(o)
	c.UpsertNamespace(cache.Namespace{Name: "default"})
	c.UpsertNAD(cache.NewNAD(cache.Key{Namespace: "default", Name: "net"}, `{"type": "bridge"}`))
	c.UpsertPod(cache.Pod{
		Key: server.Key, UID: server.UID, Node: "node", StatusField: cache.StatusAnnotation,
		Status: `[{"name": "default/net", "interface": "net1", "ips": ["10.9.0.1", "fd09::1"]}]`,
	})
	networks := "net"
	c.UpsertPolicy(policy.Compile(policy.Object{
		Key: cache.Key{Namespace: "default", Name: "policy"}, Networks: &networks,
		Spec: json.RawMessage(`{"policyTypes": ["Ingress", "Egress"], "ingress": [{"ports": [{"port": 80}]}], "egress": [{"ports": [{"port": 80}]}]}`),
	}, c.Limits()))
	return c
}

func tableOf(t *testing.T, c *cache.Cache) engine.Ruleset {
	t.Helper()
	target, ok := c.Plan(server)
	if !ok || target.Tables[engine.Inet].IsEmpty() {
		t.Fatal("the pod is not isolated")
	}
	return target.Tables[engine.Inet]
}

// TestPackets sends real packets to and from a pod with custom rules and prefixes in addition to its policy, over both families.
// The probe "in tcp 81" goes from the client to the pod, "out udp 53" from the pod to the client. The explanation of a probe must
// agree with its outcome.
func TestPackets(t *testing.T) {
	ctx, l := context.Background(), lab.ForTest(t)
	hosts := map[string]*lab.Host{}
	for name, prefixes := range map[string][2]string{"server": {"10.9.0.1/24", "fd09::1/64"}, "client": {"10.9.0.2/24", "fd09::2/64"}} {
		h, err := l.Host(name, netip.MustParsePrefix(prefixes[0]), netip.MustParsePrefix(prefixes[1]))
		if err != nil {
			t.Fatal(err)
		}
		for _, port := range []uint16{80, 81, 82} {
			for _, proto := range []lab.Protocol{lab.TCP, lab.UDP} {
				if err := h.Serve(ctx, proto, port); err != nil {
					t.Fatal(err)
				}
			}
		}
		hosts[name] = h
	}
	v4 := func(file string) cache.Common { return cache.Common{V4: parse(t, file, sets.V4)} }
	v6 := func(file string) cache.Common { return cache.Common{V6: parse(t, file, sets.V6)} }
	client4, client6 := sets.PrefixRange(netip.MustParsePrefix("10.9.0.2/31")), sets.PrefixRange(netip.MustParsePrefix("fd09::2/127"))
	for _, tt := range []struct {
		name    string
		options cache.Options
		probes  string // each with its outcome over v4 and v6: Allowed, Dropped, Rejected
	}{
		{"the policy alone", cache.Options{}, "in tcp 80 AA, in tcp 81 DD, in udp 80 DD, out tcp 80 AA, out tcp 81 DD, out udp 81 DD"},
		{"one port more", cache.Options{Ingress: v4("tcp dport 81 accept")}, "in tcp 80 AA, in tcp 81 AD, in tcp 82 DD, in udp 81 DD, out tcp 81 DD"},
		{"one port more for v6", cache.Options{Ingress: v6("tcp dport 81 accept")}, "in tcp 80 AA, in tcp 81 DA, in tcp 82 DD"},
		{"everything of v4", cache.Options{Ingress: v4("accept")}, "in tcp 81 AD, in udp 82 AD, out udp 81 DD"},
		{"a list", cache.Options{Ingress: v4("meta l4proto { tcp, udp } th dport { 70-81, 90 } accept")}, "in tcp 81 AD, in udp 81 AD, in tcp 82 DD"},
		{"not in a list", cache.Options{Ingress: v6("tcp dport != { 70-81, 90 } accept")}, "in tcp 80 AA, in tcp 81 DD, in tcp 82 DA"},
		{"a drop before the policy", cache.Options{Ingress: v4("tcp dport 80 counter drop")}, "in tcp 80 DA, out tcp 80 AA"},
		{"a drop of others", cache.Options{Ingress: v4("ip saddr != 10.9.0.2 drop")}, "in tcp 80 AA, in tcp 81 DD"},
		{"a rejection", cache.Options{Ingress: v4("tcp dport 80 reject with tcp reset\nreject")}, "in tcp 80 RA, in tcp 81 RD, in udp 81 RD"},
		{"a rejection of v6", cache.Options{Ingress: v6("udp dport { 80, 81 } reject with icmpv6 type port-unreachable")}, "in udp 80 DR, in tcp 80 AA, in udp 82 DD"},
		{"a return", cache.Options{Ingress: v4("tcp dport 81 return\nct state new accept")}, "in tcp 81 DD, in tcp 82 AD"},
		{"a range of addresses", cache.Options{Ingress: v4("ip saddr 10.9.0.2-10.9.0.3 ip daddr 10.9.0.0/25 tcp dport 81 accept")}, "in tcp 81 AD, in tcp 82 DD"},
		{"an interface", cache.Options{Ingress: v4("iifname \"net*\" accept"), Egress: v6("oifname != net2 accept")}, "in tcp 81 AD, out tcp 81 DA"},
		{"a limit", cache.Options{Ingress: v4("tcp dport 81 limit rate 100/second accept\nlimit rate over 100/second accept")}, "in tcp 81 AD, in tcp 82 DD"},
		{"egress", cache.Options{Egress: v4("udp dport 81 accept\nip daddr 10.9.0.2 tcp dport 80 drop")}, "out udp 81 AD, out tcp 80 DA, out udp 82 DD, in udp 81 DD"},
		{"from a prefix", cache.Options{Ingress: cache.Common{Sources: sets.NewAddrs(client4)}}, "in tcp 81 AD, in udp 82 AD, out tcp 81 DD"},
		{"from prefixes", cache.Options{Ingress: cache.Common{Sources: sets.NewAddrs(client4, client6)}}, "in tcp 81 AA, out tcp 81 DD"},
		{"to a prefix", cache.Options{Egress: cache.Common{Destinations: sets.NewAddrs(client6)}}, "out tcp 81 DA, out udp 81 DA, in tcp 81 DD"},
		{"from elsewhere", cache.Options{Egress: cache.Common{Sources: sets.NewAddrs(client6)}}, "out tcp 81 DD, in tcp 81 DD"},
		{"a prefix before a drop", cache.Options{Ingress: cache.Common{Sources: sets.NewAddrs(client4), V4: parse(t, "drop", sets.V4)}}, "in tcp 81 AD"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := serverOnly(t, tt.options)
			apply(t, hosts["server"], engine.Inet, tableOf(t, c))
			for _, probe := range strings.Split(tt.probes, ", ") {
				if got := send(ctx, t, hosts, probe); got != probe {
					t.Errorf("%s, want %s", got, probe)
				}
				if got := explained(t, c, probe); got != probe {
					t.Errorf("explained as %s, want %s", got, probe)
				}
			}
		})
	}
}

// send sends a probe and returns its outcome: Allowed, Dropped or Rejected.
func send(ctx context.Context, t *testing.T, hosts map[string]*lab.Host, probe string) string {
	t.Helper()
	words := strings.Fields(probe)
	from, to := hosts["client"], []string{"10.9.0.1", "fd09::1"}
	if words[0] == "out" {
		from, to = hosts["server"], []string{"10.9.0.2", "fd09::2"}
	}
	words[3] = ""
	for _, addr := range to {
		r := lab.Probe(ctx, from, netip.AddrPortFrom(netip.MustParseAddr(addr), portOf(t, words[2])),
			lab.Protocol(words[1]), 150*time.Millisecond)
		switch {
		case r.Verdict == lab.Allowed:
			words[3] += "A"
		case r.Verdict == lab.Dropped:
			words[3] += "D"
		case errors.Is(r.Err, unix.ECONNREFUSED):
			words[3] += "R"
		default:
			t.Errorf("%s to %s: %v", probe, addr, r)
		}
	}
	return strings.Join(words, " ")
}

// explained returns the outcome that the explanation predicts, or the actual outcome if a limit decides.
func explained(t *testing.T, c *cache.Cache, probe string) string {
	t.Helper()
	words := strings.Fields(probe)
	want := words[3]
	words[3] = ""
	for i, ends := range [][2]string{{"10.9.0.1", "10.9.0.2"}, {"fd09::1", "fd09::2"}} {
		q := explain.Query{
			Pod: server.Key, Direction: engine.Ingress, Remote: netip.MustParseAddr(ends[1]), Local: netip.MustParseAddr(ends[0]),
			Protocol: unix.IPPROTO_TCP, Port: portOf(t, words[2]),
		}
		if words[0] == "out" {
			q.Direction = engine.Egress
		}
		if words[1] == "udp" {
			q.Protocol = unix.IPPROTO_UDP
		}
		e, err := explain.Explain(c, q)
		if err != nil {
			t.Fatal(err)
		}
		words[3] += letter(e.Interfaces[0], want[i:i+1])
	}
	return strings.Join(words, " ")
}

func letter(e explain.InterfaceExplanation, want string) string {
	for _, r := range e.CustomRules {
		switch {
		case r.Unsure && r.Verdict != "":
			return want
		case r.Verdict == "reject":
			return "R"
		}
	}
	if e.Verdict == explain.Allowed {
		return "A"
	}
	return "D"
}

func portOf(t *testing.T, text string) uint16 {
	t.Helper()
	return netip.MustParseAddrPort("0.0.0.0:" + text).Port()
}
