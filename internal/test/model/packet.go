package model

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// Packet is the first packet of a connection, or with Established a later packet.
// The pod's end is not in it: the table is already that of the pod.
type Packet struct {
	Direction   engine.Direction
	Iface       string     // the pod's interface, on which the packet comes in or leaves
	Peer        netip.Addr // the address of the other end
	Proto       uint8      // IP protocol number
	Port        uint16     // destination port; 0 without ports
	Established bool
	Icmpv6Type  int // -1: no ICMPv6
}

// NewPacket parses "ingress net1 10.0.0.1 tcp 80", "egress net1 fd00::1 icmp" or "ingress net1 fd00::1 icmpv6 135". A word after
// the port means an established connection. It panics for other texts.
// It is the form in which tests write packets.
func NewPacket(s string) Packet {
	f := strings.Fields(s)
	p := Packet{Iface: f[1], Peer: netip.MustParseAddr(f[2]), Icmpv6Type: -1}
	if f[0] == engine.Egress.String() {
		p.Direction = engine.Egress
	}
	number := 0
	if len(f) > 4 {
		if _, err := fmt.Sscan(f[4], &number); err != nil {
			panic(err)
		}
	}
	switch f[3] {
	case "tcp", "udp", "sctp":
		p.Proto = map[string]uint8{"tcp": 6, "udp": 17, "sctp": 132}[f[3]]
		p.Port = uint16(number)
	case "icmp":
		p.Proto = 1
	case "icmpv6":
		p.Proto, p.Icmpv6Type = 58, number
	default:
		panic(s)
	}
	p.Established = len(f) > 5
	return p
}

// Table evaluates a ruleset for packets in memory, as the kernel does. It reads the texts of the statements and not
// their bytecode, and fails the test for a text that it does not know. So it tests the rules that the cache makes
// without a kernel.
type Table struct {
	t      testing.TB
	Chains map[string]*engine.Chain // by name
	Sets   map[string]*engine.Set   // by name
}

// NewTable returns the table of a ruleset.
// t fails when the table meets a statement that it does not know.
func NewTable(t testing.TB, rs engine.Ruleset) *Table {
	tb := &Table{t, map[string]*engine.Chain{}, map[string]*engine.Set{}}
	for _, c := range rs.Chains {
		tb.Chains[c.Name] = c
	}
	for _, s := range rs.Sets {
		tb.Sets[s.Name] = s
	}
	return tb
}

// Passes reports whether a packet passes the table. It fails the test if the hooks of the direction have different
// verdicts: egress has two hooks, with the same rules.
func (tb *Table) Passes(p Packet) bool {
	passes := map[bool]bool{}
	for _, h := range p.Direction.Hooks() {
		// A missing base chain accepts.
		base := tb.Chains[string(h)]
		passes[base == nil || tb.Walk(base, p) != "drop"] = true
	}
	if len(passes) != 1 {
		tb.t.Fatalf("the hooks of %s disagree about %+v", p.Direction, p)
	}
	return passes[true]
}

// Walk evaluates a chain. It returns "accept" or "drop", or "" at the end of the chain.
// A verdict ends the walk.
func (tb *Table) Walk(c *engine.Chain, p Packet) string {
	for _, r := range c.Rules {
		if verdict := tb.Rule(r, p); verdict != "" {
			return verdict
		}
	}
	return ""
}

// Rule evaluates a rule. It returns the rule's verdict, or "" if the rule does not match.
// Statements are evaluated from left to right; the first that does not match ends the rule.
func (tb *Table) Rule(r engine.Rule, p Packet) string {
	for _, s := range r.Statements {
		word, rest, _ := strings.Cut(s.Text, " ")
		switch word {
		case "accept", "drop":
			return word
		// A counter has no verdict and always matches.
		case "counter":
		case "jump", "goto":
			c := tb.Chains[rest]
			if c == nil {
				tb.t.Fatalf("no chain %s", rest)
			}
			verdict := tb.Walk(c, p)
			// The end of a chain that a goto leads to is the end of the base chain.
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

// Accepting adds the comments of the rules that accept a packet in a chain, and in the chains that its rules lead to. It goes on
// where a verdict would end the way of the packet.
// So a test sees every rule that allows a packet, not only the first.
func (tb *Table) Accepting(c *engine.Chain, p Packet, comments map[string]bool) {
	if c == nil {
		return
	}
	for _, r := range c.Rules {
		for _, s := range r.Statements {
			word, rest, _ := strings.Cut(s.Text, " ")
			switch word {
			case "accept":
				comments[r.Comment] = true
			case "jump", "goto":
				tb.Accepting(tb.Chains[rest], p, comments)
			case "drop", "counter":
			default:
				if !tb.matches(s, p) {
					word = ""
				}
			}
			if word == "" {
				break
			}
		}
	}
}

// matches reports whether a statement matches the packet. It knows the statements that the cache makes.
func (tb *Table) matches(s expr.Statement, p Packet) bool {
	match, set, isLookup := strings.Cut(s.Text, " @")
	if isLookup {
		return tb.lookup(match, set, p)
	}
	switch s.Text {
	case `iifname "` + p.Iface + `"`:
		return p.Direction == engine.Ingress
	case `oifname "` + p.Iface + `"`:
		return p.Direction == engine.Egress
	case "ct state established,related":
		return p.Established
	case "meta pkttype != host", "ip daddr 127.0.0.0/8", "ip6 daddr ::1", "ip daddr 224.0.0.0/4": // no Packet has these properties
		return false
	case "meta l4proto icmp":
		return p.Proto == 1
	case "meta l4proto ipv6-icmp":
		return p.Proto == 58
	case "icmpv6 type 130-136":
		return p.Icmpv6Type >= 130 && p.Icmpv6Type <= 136
	case "icmpv6 type mld2-listener-report":
		return p.Icmpv6Type == 143
	}
	// Only other interfaces are left. Any other text is a statement that the table does not know.
	if !strings.HasPrefix(s.Text, "iifname") && !strings.HasPrefix(s.Text, "oifname") {
		tb.t.Fatalf("what is %q?", s.Text)
	}
	return false
}

// lookup evaluates a lookup in a set. The left side must fit the packet: a set of IPv4 addresses never matches an IPv6
// packet, and a set of sources never matches an egress packet.
func (tb *Table) lookup(match, name string, p Packet) bool {
	set := tb.Sets[name]
	if set == nil {
		tb.t.Fatalf("no set %s", name)
	}
	family, address := "ip", "saddr"
	if p.Peer.Is6() {
		family = "ip6"
	}
	if p.Direction == engine.Egress {
		address = "daddr"
	}
	switch e := set.Elements.(type) {
	case engine.Addrs:
		return match == family+" "+address && e.Addrs.Contains(p.Peer)
	case engine.Hosts:
		return match == family+" "+address && e.Addrs.Contains(p.Peer)
	case engine.Ports:
		return match == "th dport . meta l4proto" && e.Ports.Contains(p.Proto, p.Port)
	case engine.Endpoints:
		if match != family+" daddr . meta l4proto . th dport" {
			return false
		}
		for end := range e.Endpoints.All(e.Family) {
			if end.Addr == p.Peer && end.Proto == p.Proto && end.Port == p.Port {
				return true
			}
		}
	}
	return false
}
