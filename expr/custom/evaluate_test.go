package custom_test

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Outcomes for packets with unknown properties. TestPackets sends packets with known properties.
func TestEvaluate(t *testing.T) {
	tcp := expr.Packet{
		Family: sets.V4, Source: netip.MustParseAddr("10.0.0.9"), Input: "net1", Protocol: unix.IPPROTO_TCP,
		DestinationPort: 81, State: expr.StateNew,
	}
	icmp := tcp
	icmp.Protocol, icmp.ICMPType = unix.IPPROTO_ICMP, 8
	gre := tcp
	gre.Protocol = unix.IPPROTO_GRE
	established := tcp
	established.State = expr.StateEstablished
	tcp6 := tcp
	tcp6.Family, tcp6.Source, tcp6.Input, tcp6.Output = sets.V6, netip.MustParseAddr("fd00::9"), "", "net1"
	nothing, unsure := expr.Outcome{}, func(v string) expr.Outcome { return expr.Outcome{Verdict: v, Unsure: true} }
	sure := func(v string) expr.Outcome { return expr.Outcome{Verdict: v} }
	for _, tt := range []struct {
		line   string
		packet expr.Packet
		want   expr.Outcome
	}{
		{"accept", tcp, sure("accept")},
		{"counter log drop", tcp, sure("drop")},
		{"counter", tcp, nothing},
		{"ip saddr 10.0.0.9 reject", tcp, sure("reject")},
		{"ip saddr 10.0.0.4/30 return", tcp, nothing},
		{"ip saddr 10.0.0.0/8 return", tcp, sure("return")},
		{"ip saddr 10.0.0.8/29 return", tcp, sure("return")},
		{"ip saddr != 10.0.0.1-10.0.0.9 drop", tcp, nothing},
		{"ip saddr { 10.0.0.1, 10.0.0.9 } drop", tcp, sure("drop")},
		{"ip daddr 10.0.0.1 drop", tcp, unsure("drop")},
		{"ip daddr 10.0.0.1 tcp dport 82 drop", tcp, nothing},
		{"ip daddr { 10.0.0.1, 10.0.0.2 } tcp dport 81 drop", tcp, unsure("drop")},
		{"ip6 saddr fd00::/64 accept", tcp6, sure("accept")},
		{"ip6 saddr { fd00::9, fd00::11 } accept", tcp6, sure("accept")},
		{"ip6 saddr != { fd00::9, fd00::11 } accept", tcp6, nothing},
		{"oifname \"net*\" accept", tcp6, sure("accept")},
		{"iifname net1 accept", tcp6, nothing},
		{"iifname net1 accept", tcp, sure("accept")},
		{"iifname net accept", tcp, nothing},
		{"iifname != \"eth*\" accept", tcp, sure("accept")},
		{"tcp sport 1000 accept", tcp, unsure("accept")},
		{"udp sport 1000 accept", tcp, nothing},
		{"th dport 80-81 accept", tcp, sure("accept")},
		{"th dport 81 accept", gre, unsure("accept")},
		{"th dport 81 accept", icmp, unsure("accept")},
		{"meta l4proto { tcp, gre } accept", gre, sure("accept")},
		{"meta l4proto != { tcp, gre } accept", gre, nothing},
		{"icmp type echo-request accept", icmp, sure("accept")},
		{"icmp type { 0, 3-4 } accept", icmp, nothing},
		{"icmp type echo-request accept", tcp, nothing},
		{"meta mark 7 accept", tcp, unsure("accept")},
		{"meta mark & 3 == 1 accept", tcp, unsure("accept")},
		{"meta mark 1-7 tcp dport 82 accept", tcp, nothing},
		{"meta mark { 1, 7 } accept", tcp, unsure("accept")},
		{"ct state new accept", tcp, sure("accept")},
		{"ct state new accept", established, nothing},
		{"ct state ! new,related accept", established, sure("accept")},
		{"ct state != { established, related } accept", established, nothing},
		{"limit rate 1/second accept", tcp, unsure("accept")},
		{"limit rate over 1/second drop", tcp, unsure("drop")},
		{"tcp dport 82 limit rate 1/second accept", tcp, nothing},
	} {
		rules := parse(t, tt.line, tt.packet.Family)
		got, err := expr.Evaluate(rules.Rules[0].Statements, tt.packet, rules.Lookup)
		if err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v, want %+v", tt.line, got, err, tt.want)
		}
	}
}
