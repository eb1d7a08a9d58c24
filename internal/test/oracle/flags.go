package oracle

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// Flags are flags of the agent that change verdicts, by their names without dashes. For a flag that names a file, the
// value is the content of the file: a case must be complete without its surroundings.
type Flags map[string]string

// Args returns the flags as arguments of a command line, in no particular order. It writes the files into the
// directory.
func (f Flags) Args(dir string) ([]string, error) {
	var args []string
	for name, value := range f {
		if strings.HasSuffix(name, "-file") {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte(value), 0o600); err != nil {
				return nil, err
			}
			value = path
		}
		args = append(args, "--"+name+"="+value)
	}
	return args, nil
}

// flagged returns the verdict of the flags on a packet. It is false when the flags leave the packet to the policies.
// The order is the agent's: ICMP and prefixes come before custom rules.
// d is the direction in the eyes of the pod whose agent judges.
func (o *Oracle) flagged(d Direction, p Packet) (Ruling, bool) {
	version, icmp := "v4", "accept-icmp"
	if p.From.Addr.Is6() {
		version, icmp = "v6", "accept-icmpv6"
	}
	if p.Proto == ICMP && o.Flags[icmp] == "true" {
		return Ruling{true, "--" + icmp}, true
	}
	// The first two flags apply in one direction each: source prefixes to ingress, destination prefixes to egress. The
	// flags for IPv6 apply in both directions.
	for _, allow := range []struct {
		flag string
		addr netip.Addr
		only Direction
	}{
		{"allow-src-prefix", p.From.Addr, Ingress},
		{"allow-dst-prefix", p.To.Addr, Egress},
		{"allow-ipv6-src-prefix", p.From.Addr, d},
		{"allow-ipv6-dst-prefix", p.To.Addr, d},
	} {
		if list := o.Flags[allow.flag]; allow.only == d && list != "" {
			for _, prefix := range strings.Split(list, ",") {
				if netip.MustParsePrefix(prefix).Contains(allow.addr) {
					return Ruling{true, "--" + allow.flag}, true
				}
			}
		}
	}
	for _, line := range strings.Split(o.Flags["custom-"+version+"-"+string(d)+"-rule-file"], "\n") {
		switch verdict := p.under(strings.Fields(line)); verdict {
		case "accept", "drop":
			return Ruling{verdict == "accept", "custom rule " + line}, true
		// A return skips the custom rules behind it: the policies decide.
		case "return":
			return Ruling{}, false
		}
	}
	return Ruling{}, false
}

// under returns the verdict of a custom rule on the packet, empty if the rule does not match. It knows only the few
// forms that random cases have: "ip saddr PREFIX", "ip daddr PREFIX", the same with "ip6", "PROTOCOL dport N-M", and a
// verdict at the end. It is written apart from the agent's parser, which it judges.
// An example: "ip saddr 10.0.0.0/30 tcp dport 80-90 drop".
func (p Packet) under(words []string) string {
	// Each match has three words; the verdict is the last word.
	for ; len(words) > 1; words = words[3:] {
		matches := false
		switch words[1] {
		case "saddr":
			matches = netip.MustParsePrefix(words[2]).Contains(p.From.Addr)
		case "daddr":
			matches = netip.MustParsePrefix(words[2]).Contains(p.To.Addr)
		case "dport":
			var from, to int
			if _, err := fmt.Sscanf(words[2], "%d-%d", &from, &to); err != nil {
				panic(fmt.Sprintf("ports %s: %v", words[2], err)) // a case is wrong
			}
			matches = words[0] == p.Proto.String() && from <= int(p.Port) && int(p.Port) <= to
		}
		if !matches {
			return ""
		}
	}
	return strings.Join(words, "")
}
