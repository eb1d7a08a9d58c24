package custom_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// The rule for replies of each rule. Empty: it is left out.
func TestReplies(t *testing.T) {
	for line, want := range map[string]string{
		"accept": "accept",
		"ip saddr 10.0.0.1 tcp dport 80 counter log accept": "ip daddr 10.0.0.1 tcp sport 80 accept",
		"ip daddr != 10.0.0.0/8 udp sport 1-9 drop":         "ip saddr != 10.0.0.0/8 udp dport 1-9 drop",
		"iifname \"net*\" oifname != net2 return":           "oifname \"net*\" iifname != \"net2\" return",
		"meta l4proto { tcp, udp } th dport 53 accept":      "meta l4proto @SET th sport 53 accept",
		"ip saddr { 10.0.0.1, 10.0.0.9 } accept":            "ip daddr @SET accept",
		"tcp dport 80 reject":                               "tcp sport 80 drop",
		"ip saddr 10.0.0.1 reject with tcp reset":           "ip daddr 10.0.0.1 meta l4proto tcp drop",
		"icmp type echo-request accept":                     "meta l4proto icmp accept",
		"icmp type { 3, 8 } drop":                           "",
		"meta mark 7 tcp dport 80 accept":                   "tcp sport 80 accept",
		"meta mark & 3 == 1 drop":                           "",
		"mark 7 return":                                     "",
		"limit rate 3/second accept":                        "accept",
		"limit rate over 3/second drop":                     "",
		"counter":                                           "",
		"ct state invalid drop":                             "",
		"ct state ! invalid,untracked tcp dport 1 drop":     "tcp sport 1 drop",
		"ct state new tcp dport 1 accept":                   "tcp sport 1 accept",
	} {
		rules := parse(t, line, sets.V4)
		var got string
		for _, r := range rules.Replies {
			got += engine.Rule{Statements: r.Statements}.Text()
		}
		for _, s := range rules.Sets {
			got = strings.ReplaceAll(got, s.Name, "SET")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", line, diff)
		}
		if asks := strings.Contains(line, "ct state new"); rules.Rules[0].AsksState != asks {
			t.Errorf("%s: asks for the state: %v", line, !asks)
		}
	}
}
