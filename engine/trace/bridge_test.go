package trace

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// TestTraceBridge traces frames of a virtual machine, in both directions. The table of the agent drops them, as on a kernel without
// connection tracking for bridges.
func TestTraceBridge(t *testing.T) {
	w := newTraced(t)
	guest, err := w.server.VirtualMachine("net1")
	if err != nil {
		t.Fatal(err)
	}
	dropping := func(d engine.Direction) *engine.Chain {
		return &engine.Chain{Name: engine.InterfaceChain(d, "net1"), Rules: []engine.Rule{
			{Statements: []expr.Statement{expr.ARP(), expr.Accept()}}, {Statements: []expr.Statement{expr.Counter(), expr.Drop()}},
		}}
	}
	base := func(h engine.Hook, d engine.Direction) *engine.Chain {
		rule := engine.Rule{Statements: []expr.Statement{d.OnInterface("net1-nic"), expr.Goto(engine.InterfaceChain(d, "net1"))}}
		return &engine.Chain{Name: string(h), Hook: h, Rules: []engine.Rule{rule}}
	}
	e, err := engine.Open("default/pod", w.server.NetNS(), engine.Options{Family: engine.Bridge})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.Apply(t.Context(), engine.NewRuleset(nil, []*engine.Chain{
		dropping(engine.Ingress), dropping(engine.Egress), base(engine.HookPrerouting, engine.Ingress), base(engine.HookForward, engine.Egress),
	})); err != nil {
		t.Fatal(err)
	}
	tracer := w.start(Filter{Interface: "net1", Port: 80, Protocol: unix.IPPROTO_TCP})
	w.probe("10.9.0.1:80", lab.TCP)
	lab.Probe(t.Context(), guest, netip.MustParseAddrPort("10.9.0.2:80"), lab.TCP, 150*time.Millisecond)
	lines := distinct(w.packets(tracer))
	for _, want := range []string{
		"net1-nic> 10.9.0.2 > 10.9.0.1:80 | prerouting goto ingress-net1 | ingress-net1 drop counter drop",
		"tap-net1>net1-nic 10.9.0.1 > 10.9.0.2:80 | forward goto egress-net1 | egress-net1 drop counter drop",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no %q in\n%s", want, strings.Join(lines, "\n"))
		}
	}
}
