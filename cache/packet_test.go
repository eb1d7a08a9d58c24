package cache

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// packet is the first one of a connection, unless it is established.
type packet struct {
	direction   direction
	iface       string
	peer        netip.Addr
	proto       uint8
	port        uint16
	established bool
	icmpv6Type  int
}

// newPacket reads "ingress net1 10.0.0.1 tcp 80", "egress net1 fd00::1 icmp" or "ingress net1 fd00::1 icmpv6 135".
func newPacket(s string) packet {
	f := strings.Fields(s)
	p := packet{iface: f[1], peer: netip.MustParseAddr(f[2]), icmpv6Type: -1}
	if f[0] == egress.String() {
		p.direction = egress
	}
	number := 0
	if len(f) > 4 {
		if _, err := fmt.Sscan(f[4], &number); err != nil {
			panic(err)
		}
	}
	switch f[3] {
	case "tcp", "udp", "sctp":
		p.proto = map[string]uint8{"tcp": protoTCP, "udp": protoUDP, "sctp": protoSCTP}[f[3]]
		p.port = uint16(number)
	case "icmp":
		p.proto = 1
	case "icmpv6":
		p.proto, p.icmpv6Type = 58, number
	default:
		panic(s)
	}
	p.established = len(f) > 5
	return p
}

// table walks a packet through a ruleset as the kernel would, by the text of the statements.
type table struct {
	t      testing.TB
	chains map[string]*engine.Chain
	sets   map[string]*engine.Set
}

func newTable(t testing.TB, rs engine.Ruleset) *table {
	tb := &table{t, map[string]*engine.Chain{}, map[string]*engine.Set{}}
	for _, c := range rs.Chains {
		tb.chains[c.Name] = c
	}
	for _, s := range rs.Sets {
		tb.sets[s.Name] = s
	}
	return tb
}

// passes says whether the table lets a packet through.
func (tb *table) passes(p packet) bool {
	base := tb.chains[string(p.direction.hook())]
	if base == nil {
		return true
	}
	verdict := tb.walk(base, p)
	return verdict != "drop"
}

// walk returns "accept", "drop", or nothing at the end of the chain.
func (tb *table) walk(c *engine.Chain, p packet) string {
	for _, r := range c.Rules {
		if verdict := tb.rule(r, p); verdict != "" {
			return verdict
		}
	}
	return ""
}

func (tb *table) rule(r engine.Rule, p packet) string {
	for _, s := range r.Statements {
		word, rest, _ := strings.Cut(s.Text, " ")
		switch word {
		case "accept", "drop":
			return word
		case "counter":
		case "jump", "goto":
			c := tb.chains[rest]
			if c == nil {
				tb.t.Fatalf("no chain %s", rest)
			}
			verdict := tb.walk(c, p)
			if word == "goto" && verdict == "" {
				return "accept" // the policy of the base chain
			}
			return verdict
		default:
			if !tb.matches(s, p) {
				return ""
			}
		}
	}
	return ""
}

func (tb *table) matches(s expr.Statement, p packet) bool {
	match, set, isLookup := strings.Cut(s.Text, " @")
	if isLookup {
		return tb.lookup(match, set, p)
	}
	switch s.Text {
	case `iifname "` + p.iface + `"`:
		return p.direction == ingress
	case `oifname "` + p.iface + `"`:
		return p.direction == egress
	case "ct state established,related":
		return p.established
	case "meta l4proto icmp":
		return p.proto == 1
	case "meta l4proto ipv6-icmp":
		return p.proto == 58
	case "icmpv6 type 130-136":
		return p.icmpv6Type >= 130 && p.icmpv6Type <= 136
	case "icmpv6 type mld2-listener-report":
		return p.icmpv6Type == 143
	}
	if !strings.HasPrefix(s.Text, "iifname") && !strings.HasPrefix(s.Text, "oifname") {
		tb.t.Fatalf("what is %q?", s.Text)
	}
	return false
}

func (tb *table) lookup(match, name string, p packet) bool {
	set := tb.sets[name]
	if set == nil {
		tb.t.Fatalf("no set %s", name)
	}
	family, address := "ip", "saddr"
	if p.peer.Is6() {
		family = "ip6"
	}
	if p.direction == egress {
		address = "daddr"
	}
	switch e := set.Elements.(type) {
	case engine.Addrs:
		return match == family+" "+address && e.Addrs.Contains(p.peer)
	case engine.Ports:
		return match == "th dport . meta l4proto" && e.Ports.Contains(p.proto, p.port)
	case engine.Endpoints:
		if match != family+" daddr . meta l4proto . th dport" {
			return false
		}
		for end := range e.Endpoints.All(e.Family) {
			if end.Addr == p.peer && end.Proto == p.proto && end.Port == p.port {
				return true
			}
		}
	}
	return false
}

// wantPackets checks a pod against lines of "pass ingress net1 10.0.0.1 tcp 80" or "drop …".
func wantPackets(t *testing.T, c *Cache, pod string, lines ...string) {
	t.Helper()
	rs := c.Ruleset(keyOf(pod))
	tb := newTable(t, rs)
	for _, line := range lines {
		verdict, rest, _ := strings.Cut(line, " ")
		if got := tb.passes(newPacket(rest)); got != (verdict == "pass") {
			t.Errorf("%s: want %s; the table is\n%s", pod, line, render(t, rs))
			return
		}
	}
}
