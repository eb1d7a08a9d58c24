package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// ruleStyle is a form of the policies in the server's table.
type ruleStyle struct {
	name string
	// load writes the table into the network namespace of the server
	load func(k *link, w *world) error
	most int // largest number of policies times peers
}

// The first style has no rules: it is the cost that all packets have.
var ruleStyles = []ruleStyle{
	{name: "none", load: func(*link, *world) error { return nil }, most: 10_000_000},
	{name: "ours", load: func(k *link, w *world) error { return loadOurs(k, w.rulesets[base][0]) }, most: 10_000_000},
	// With revoke, packets of established connections meet the rules of policies too.
	{name: "ours, revoke", load: func(k *link, w *world) error { return loadOurs(k, w.revoking()) }, most: 10_000_000},
	{name: "peer", load: loadPeer, most: 10_000_000},
	{name: "linear", load: loadLinear, most: 10_000},
}

// loadOurs lets the engine write the ruleset that the cache planned. The rules stay when the engine is closed.
func loadOurs(k *link, rules engine.Ruleset) error {
	e, err := engine.Open("server", k.server.NetNS(), engine.Options{})
	if err != nil {
		return err
	}
	return errors.Join(e.Apply(context.Background(), rules), e.Close())
}

// loadPeer writes the rules like agents that go through nft: a jump for each policy behind a match on the interface, a set of
// addresses for each policy, and a rule for each port.
func loadPeer(k *link, w *world) error {
	var sets, jumps, chains strings.Builder
	w.eachPolicy(func(i int, peers []netip.Addr, ports []int) {
		fmt.Fprintf(&sets, "set p-%d {\ntype ipv4_addr\nflags interval\nelements = { %s }\n}\n", i, join(peers, ", "))
		fmt.Fprintf(&jumps, "iifname \"net1\" jump p-%d\n", i)
		fmt.Fprintf(&chains, "chain p-%d {\n", i)
		for _, p := range ports {
			fmt.Fprintf(&chains, "ip saddr @p-%d udp dport %d accept\n", i, p)
		}
		chains.WriteString("}\n")
	})
	return nft(k, sets.String()+chains.String(), jumps.String())
}

// loadLinear writes a rule for each peer.
// Each packet tries the rules in order up to its own, so the cost grows with the peers: this style is the lower end
// of the scale.
func loadLinear(k *link, w *world) error {
	var rules strings.Builder
	w.eachPolicy(func(_ int, peers []netip.Addr, ports []int) {
		for _, p := range peers {
			fmt.Fprintf(&rules, "iifname \"net1\" ip saddr %s udp dport { %s } accept\n", p, join(ports, ", "))
		}
	})
	return nft(k, "", rules.String())
}

// join formats a list for nft.
func join[T any](list []T, separator string) string {
	texts := make([]string, len(list))
	for i, x := range list {
		texts[i] = fmt.Sprint(x)
	}
	return strings.Join(texts, separator)
}

// nft loads a table with the rules: established connections are accepted first, and the packets that no rule accepts
// are dropped last. before has the sets and chains that the rules use.
func nft(k *link, before, rules string) error {
	text := fmt.Sprintf("table inet peer {\n%schain input {\ntype filter hook input priority filter; policy accept;\n"+
		"iifname \"net1\" ct state established,related accept\n%siifname \"net1\" drop\n}\n}\n", before, rules)
	return k.server.Do(func() error {
		// This is not measured: the rules are loaded before the first packet.
		c := exec.Command("nft", "-f", "-")
		c.Stdin = strings.NewReader(text)
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %.500s", err, out)
		}
		return nil
	})
}

// eachPolicy calls visit with the allowed peers and ports of each policy.
func (w *world) eachPolicy(visit func(i int, peers []netip.Addr, ports []int)) {
	for i := range w.Policies {
		peers, ports := w.allowed(i)
		visit(i, peers, ports)
	}
}

// allowed returns the peers and ports of policy number i.
// Peers are spread over the policies in turn. The peer in the middle is the pod that the event adds, so it is left
// out.
func (s size) allowed(i int) (peers []netip.Addr, ports []int) {
	for p := i; p < s.Peers+1; p += s.Policies {
		if p != s.Peers/2 {
			peers = append(peers, s.addr([4]byte{10}, p))
		}
	}
	for _, p := range s.portsOf(i) {
		ports = append(ports, p.Port.IntValue())
	}
	return peers, ports
}
