package trace

import (
	"fmt"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(traceChildVar); path != "" {
		os.Exit(traceChild(path))
	}
	lab.Main(m)
}

// apply makes the agent's table in the host equal to the ruleset.
func apply(t testing.TB, h *lab.Host, rs engine.Ruleset) {
	t.Helper()
	e, err := engine.Open("default/pod", h.NetNS(), engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := e.Apply(t.Context(), rs); err != nil {
		t.Fatal(err)
	}
}

// isolated returns a table that lets packets in on net1 only from the peers, and only to the TCP port.
func isolated(port uint16, peers ...string) engine.Ruleset {
	var addrs sets.Addrs
	for _, p := range peers {
		addrs = addrs.Insert(sets.Single(netip.MustParseAddr(p)))
	}
	rule := func(comment string, s ...expr.Statement) engine.Rule {
		return engine.Rule{Statements: s, Comment: comment}
	}
	ports := fmt.Sprintf("ports-%d", port)
	return engine.NewRuleset(
		[]*engine.Set{
			{Name: "peers-v4", Elements: engine.Addrs{Family: sets.V4, Addrs: addrs}},
			{Name: "peers-v6", Elements: engine.Addrs{Family: sets.V6, Addrs: addrs}},
			{Name: ports, Elements: engine.Ports{Ports: sets.NewPorts(sets.PortRange{Proto: unix.IPPROTO_TCP, From: port, To: port})}},
		},
		[]*engine.Chain{
			{Name: "prerouting", Hook: engine.HookPrerouting, Rules: []engine.Rule{
				rule("", expr.IIFName("net1"), expr.Goto("ingress-net1")),
			}},
			{Name: "ingress-net1", Rules: []engine.Rule{
				rule("", expr.Established(), expr.Accept()),
				rule("", append(expr.LinkControl()[0], expr.Accept())...),
				rule("policy", expr.SourceIn(sets.V4, "peers-v4"), expr.PortIn(ports), expr.Accept()),
				rule("policy", expr.SourceIn(sets.V6, "peers-v6"), expr.PortIn(ports), expr.Accept()),
				rule("", expr.Counter(), expr.Drop()),
			}},
		})
}
