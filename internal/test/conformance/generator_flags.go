package conformance

import (
	"strconv"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// flags makes random flags. Each of them is rare, so that most cases are about policies.
// A file has at most three rules.
func (g *generator) flags() oracle.Flags {
	f := oracle.Flags{}
	if g.chance(40) {
		f["established"] = "revoke"
	}
	if g.modes.IntN(100) < 4 {
		f["audit"] = "true"
	}
	if g.modes.IntN(100) < 15 {
		f["drop-log"] = []string{"all", "none"}[g.modes.IntN(2)]
	}
	if g.chance(10) {
		f["accept-icmp"], f["accept-icmpv6"] = "true", "true"
	}
	// Most of the prefixes hold some addresses of someAddrs, and leave others out.
	prefixes := []string{"10.0.0.0/30", "10.1.1.0/24", "fd00::/126", "fd00:1::1:0/112", "0.0.0.0/0", "::/1"}
	for _, flag := range []string{"allow-src-prefix", "allow-dst-prefix"} {
		if g.chance(8) {
			f[flag] = one(g, prefixes...) + "," + one(g, prefixes...)
		}
	}
	for _, flag := range []string{"allow-ipv6-src-prefix", "allow-ipv6-dst-prefix"} {
		if g.chance(8) {
			f[flag] = one(g, "fd00::/126", "fd00:1::1:0/112")
		}
	}
	for _, version := range []string{"v4", "v6"} {
		for _, d := range []oracle.Direction{oracle.Ingress, oracle.Egress} {
			if g.chance(10) {
				var lines []string
				for range 1 + g.IntN(3) {
					lines = append(lines, g.customRule(version))
				}
				f["custom-"+version+"-"+string(d)+"-rule-file"] = strings.Join(lines, "\n")
			}
		}
	}
	return f
}

// customRule makes a random rule of the forms that [Packet.under] can read. A rule without a match applies to all
// packets.
func (g *generator) customRule(version string) string {
	word, prefixes := "ip", []string{"10.0.0.0/30", "10.0.0.2/32", "10.0.0.0/15"}
	if version == "v6" {
		word, prefixes = "ip6", []string{"fd00::/126", "fd00::2/128", "fd00::/31"}
	}
	text := ""
	if g.chance(50) {
		text += word + " " + one(g, "saddr", "daddr") + " " + one(g, prefixes...) + " "
	}
	if g.chance(60) {
		from := int(one(g, somePorts...))
		text += one(g, "tcp", "udp", "sctp") + " dport " + strconv.Itoa(from) + "-" + strconv.Itoa(min(from+g.IntN(100), 65535)) + " "
	}
	return text + one(g, "accept", "accept", "drop", "return")
}
