package custom_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/custom"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// text returns the rules of a file as nft prints them, with the content of sets in place of their names.
func text(r custom.Rules) []string { return textOf(r, false) }

// textOf writes the element of a set with a single element twice, if asked to: the parser makes a set only of a list.
func textOf(r custom.Rules, twice bool) []string {
	var names []string
	for _, s := range r.Sets {
		var content []string
		for a := range s.Addrs.Ranges(max(s.Family, sets.V4)) {
			content = append(content, a.String())
		}
		for n := range s.Numbers.Ranges() {
			content = append(content, s.Type.ElementText(n))
		}
		if twice && len(content) == 1 {
			content = append(content, content[0])
		}
		names = append(names, "@"+s.Name, "{ "+strings.Join(content, ", ")+" }")
	}
	var lines []string
	for _, rule := range r.Rules {
		var words []string
		for _, s := range rule.Statements {
			words = append(words, s.Text)
		}
		if rule.Comment != "" {
			words = append(words, `comment "`+rule.Comment+`"`)
		}
		lines = append(lines, strings.NewReplacer(names...).Replace(strings.Join(words, " ")))
	}
	return lines
}

func parse(t *testing.T, file string, f sets.Family) custom.Rules {
	t.Helper()
	r, err := custom.Parse("file", strings.NewReader(file), f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestParse has the lines whose text changes. forms_test.go has the lines that stay the same.
func TestParse(t *testing.T) {
	for _, tt := range []struct {
		family   sets.Family
		in, want string
	}{
		{sets.V4, "  \t", ""},
		{sets.V4, "# nothing", ""},
		{sets.V4, "accept # all\r", "accept"},
		{sets.V4, "accept#all", "accept"},
		{sets.V4, `log prefix "#1 " drop`, `log prefix "#1 " drop`},
		{sets.V4, "ip saddr 10.0.0.5/24 accept", "ip saddr 10.0.0.0/24 accept"},
		{sets.V4, "ip saddr 10.0.0.5/32 accept", "ip saddr 10.0.0.5 accept"},
		{sets.V4, "ip saddr 10.0.0.5-10.0.0.5 accept", "ip saddr 10.0.0.5 accept"},
		{sets.V4, "ip saddr == 10.0.0.5 accept", "ip saddr 10.0.0.5 accept"},
		{sets.V4, "ip saddr{10.0.0.5}accept", "ip saddr 10.0.0.5 accept"},
		{sets.V4, "ip saddr != { 10.0.0.0/8, 10.1.0.0/16, 11.0.0.0/8, } drop", "ip saddr != { 10.0.0.0/7 } drop"},
		{sets.V6, "ip6 daddr { fd00::1, fd00::2-fd00::3 } accept", "ip6 daddr { fd00::1-fd00::3 } accept"},
		{sets.V6, "ip6 daddr { ::ffff:10.0.0.0/104, ::ffff:9.0.0.0 } accept", "ip6 daddr { ::ffff:9.0.0.0, ::ffff:10.0.0.0/104 } accept"},
		{sets.V4, "tcp dport ssh accept", "tcp dport 22 accept"},
		{sets.V4, "tcp dport 0x50 accept", "tcp dport 80 accept"},
		{sets.V4, "tcp dport { https, 80-90, 85, 91 } accept", "tcp dport { 80-91, 443 } accept"},
		{sets.V4, "tcp dport { 0-65535 } accept", "tcp dport 0-65535 accept"},
		{sets.V4, "udp sport netbios-ns accept", "udp sport 137 accept"},
		{sets.V4, "meta l4proto 17 accept", "meta l4proto udp accept"},
		{sets.V6, "meta l4proto icmpv6 accept", "meta l4proto ipv6-icmp accept"},
		{sets.V4, "meta l4proto { tcp, udp, icmp, ipv6-icmp } accept", "meta l4proto { icmp, tcp, udp, ipv6-icmp } accept"},
		{sets.V4, "meta l4proto tcp tcp dport 80 accept", "tcp dport 80 accept"},
		{sets.V4, "meta l4proto tcp ip saddr 10.0.0.1 tcp dport 80 accept", "ip saddr 10.0.0.1 tcp dport 80 accept"},
		{sets.V4, "tcp dport 80 meta l4proto tcp accept", "tcp dport 80 accept"},
		{sets.V4, "meta l4proto tcp meta l4proto tcp accept", "meta l4proto tcp accept"},
		{sets.V4, "meta l4proto udp th dport 53 accept", "udp dport 53 accept"},
		{sets.V4, "th dport 53 meta l4proto udp accept", "udp dport 53 accept"},
		{sets.V4, "meta l4proto icmp icmp type 8 accept", "icmp type echo-request accept"},
		{sets.V4, "meta l4proto { tcp, udp } th dport 53 accept", "meta l4proto { tcp, udp } th dport 53 accept"},
		{sets.V4, "meta iifname net1 meta oifname net2 accept", `iifname "net1" oifname "net2" accept`},
		{sets.V4, "mark 16 accept", "meta mark 0x00000010 accept"},
		{sets.V4, "meta mark { 4-7, 9 } accept", "meta mark { 0x00000004/30, 0x00000009 } accept"},
		{sets.V4, "meta mark and 0xff == 16 accept", "meta mark & 0x000000ff == 0x00000010 accept"},
		{sets.V4, "meta mark & 0xff00 != 0 accept", "meta mark & 0x0000ff00 != 0x00000000 accept"},
		{sets.V4, "meta mark & 0xff000000 == 0x1000000 accept", "meta mark 0x01000000/8 accept"},
		{sets.V4, "meta mark != 0x1000000/8 accept", "meta mark != 0x01000000/8 accept"},
		{sets.V4, "meta mark { 0x4/30, 9/32 } accept", "meta mark { 0x00000004/30, 0x00000009 } accept"},
		{sets.V4, "meta mark & 0xffffffff == 1 accept", "meta mark 0x00000001 accept"},
		{sets.V4, "icmp type { 8, echo-reply, 3-5 } accept", "icmp type { echo-reply, 3-5, echo-request } accept"},
		{sets.V6, "icmpv6 type mld-listener-reduction accept", "icmpv6 type mld-listener-done accept"},
		{sets.V4, "ct state related,established accept", "ct state established,related accept"},
		{sets.V4, "ct state { new, established } accept", "ct state established,new accept"},
		{sets.V4, "ct state != { new, related } drop", "ct state ! related,new drop"},
		{sets.V4, "ct state ! invalid drop", "ct state != invalid drop"},
		{sets.V4, "ct state == new drop", "ct state new drop"},
		{sets.V4, "limit rate 10/second burst 5 packets accept", "limit rate 10/second accept"},
		{sets.V4, `log level info prefix "x" drop`, `log prefix "x" level info drop`},
		{sets.V4, "log prefix x level warn", `log prefix "x"`},
		{sets.V4, "reject with icmpx type port-unreachable", "reject"},
		{sets.V4, "reject with icmpx 1", "reject"},
		{sets.V4, "reject with icmp type host-unreachable", "reject with icmp host-unreachable"},
		{sets.V4, "ip saddr 10.0.0.1 reject", "ip saddr 10.0.0.1 reject with icmp port-unreachable"},
		{sets.V6, "icmpv6 type 128 reject", "icmpv6 type echo-request reject with icmpv6 port-unreachable"},
		{sets.V4, "ip saddr 10.0.0.1 reject with tcp reset", "meta l4proto tcp ip saddr 10.0.0.1 reject with tcp reset"},
		{sets.V4, `accept comment "why not"`, `accept comment "why not"`},
		{sets.V4, "counter comment x", `counter comment "x"`},
	} {
		var want []string
		if tt.want != "" {
			want = []string{tt.want}
		}
		if diff := cmp.Diff(want, text(parse(t, tt.in, tt.family))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.in, diff)
		}
	}
}

// TestSyntaxErrors checks that invalid lines are refused, with the position and the expected words.
func TestSyntaxErrors(t *testing.T) {
	for _, tt := range []struct {
		family sets.Family
		in     string
		column int
		want   string // part of the expected words
	}{
		{sets.V4, "-p tcp --dport 80 -j ACCEPT", 1, "not of iptables"},
		{sets.V4, "add rule inet t c accept", 1, "ip, ip6"},
		{sets.V4, "{", 1, "ip, ip6"},
		{sets.V4, `"accept"`, 1, "ip, ip6"},
		{sets.V4, "accept;", 7, "a word"},
		{sets.V4, "tcp dport < 80 accept", 11, "a word"},
		{sets.V4, "accept \x00", 8, "a word"},
		{sets.V4, "accept \xff", 8, "a word"},
		{sets.V4, "ip6 saddr fd00::1 accept", 1, "nothing of IPv6"},
		{sets.V4, "ip saddr fd00::1 accept", 10, "of IPv4"},
		{sets.V4, "icmpv6 type 135 accept", 1, "nothing of IPv6"},
		{sets.V4, "meta l4proto ipv6-icmp accept", 14, "nothing of IPv6"},
		{sets.V4, "meta l4proto != 58 drop", 17, "nothing of IPv6"},
		{sets.V4, "reject with icmpv6 no-route", 13, "nothing of IPv6"},
		{sets.V6, "ip saddr 10.0.0.1 accept", 1, "nothing of IPv4"},
		{sets.V6, "icmp type 8 accept", 1, "nothing of IPv4"},
		{sets.V6, "meta l4proto icmp accept", 14, "nothing of IPv4"},
		{sets.V6, "reject with icmp type net-unreachable", 13, "nothing of IPv4"},
		{sets.V6, "ip6 saddr 10.0.0.1 accept", 11, "of IPv6"},
		{sets.V6, "ip6 saddr fe80::1%net1 accept", 18, "a word"},
		{sets.V4, "ip protocol tcp accept", 4, "saddr or daddr"},
		{sets.V4, "ip saddr", 9, "an address"},
		{sets.V4, "ip saddr accept", 10, "an address"},
		{sets.V4, "ip saddr 10.0.0.300 accept", 10, "an address"},
		{sets.V4, "ip saddr 10.0.0.01 accept", 10, "an address"},
		{sets.V4, "ip saddr 10.0.0.0/33 accept", 10, "an address"},
		{sets.V4, "ip saddr 10.0.0.9-10.0.0.1 accept", 10, "an address"},
		{sets.V4, "ip saddr 10.0.0.9-fd00::1 accept", 10, "an address"},
		{sets.V4, "ip saddr example.com accept", 10, "an address"},
		{sets.V4, "ip saddr @set accept", 10, "a word"},
		{sets.V4, "ip saddr { } accept", 12, "an address"},
		{sets.V4, "ip saddr { 10.0.0.1 10.0.0.2 } accept", 21, `"," or "}"`},
		{sets.V4, "ip saddr { 10.0.0.1", 20, `"," or "}"`},
		{sets.V4, "ip saddr 10.0.0.1,10.0.0.2 accept", 18, "ip, ip6"},
		{sets.V4, "tcp port 80", 5, "sport or dport"},
		{sets.V4, "tcp dport 65536 accept", 11, "a port"},
		{sets.V4, "tcp dport -1 accept", 11, "a port"},
		{sets.V4, "tcp dport 010 accept", 11, "a port"},
		{sets.V4, "tcp dport 80- accept", 11, "a port"},
		{sets.V4, "tcp dport ssh-http accept", 11, "a port"},
		{sets.V4, "tcp dport gopher accept", 11, "a port"},
		{sets.V4, "tcp dport 90-80 accept", 11, "does not end before"},
		{sets.V4, "tcp dport 80 udp dport 80 accept", 14, "about tcp already"},
		{sets.V4, "meta l4proto udp tcp dport 80 accept", 18, "about udp already"},
		{sets.V4, "meta l4proto { tcp, udp } tcp dport 80 accept", 6, "th has the ports"},
		{sets.V4, "meta l4proto != udp meta l4proto tcp th dport 80 accept", 6, "th has the ports"},
		{sets.V4, "icmp type 8 th dport 80 accept", 13, "no ports"},
		{sets.V4, "icmp code 8 accept", 6, `"type"`},
		{sets.V4, "icmp type ping accept", 11, "a message type"},
		{sets.V4, "icmp type 256 accept", 11, "a message type"},
		{sets.V4, "icmp type nd-redirect accept", 11, "a message type"},
		{sets.V4, "meta length 8 accept", 6, "l4proto, iifname, oifname or mark"},
		{sets.V4, "meta l4proto all accept", 14, "a protocol"},
		{sets.V4, `iifname "a234567890123456" accept`, 9, "an interface"},
		{sets.V4, `iifname "*" accept`, 9, "an interface"},
		{sets.V4, `iifname "n*t" accept`, 9, "an interface"},
		{sets.V4, `iifname "net\*" accept`, 9, "an interface"},
		{sets.V4, "iifname { net1, net2 } accept", 9, "an interface"},
		{sets.V4, "meta mark 0x100000000 accept", 11, "a mark"},
		{sets.V4, "meta mark 0x5/31 accept", 11, "a mark"},
		{sets.V4, "meta mark 0x5/33 accept", 11, "a mark"},
		{sets.V4, "meta mark 0/0 accept", 11, "a mark"},
		{sets.V4, "tcp dport { 80/4, 1 } accept", 13, "a port"},
		{sets.V4, "meta mark & 0 == 0 accept", 13, "a mask that is not 0"},
		{sets.V4, "meta mark & 0xf == 0x10 accept", 20, "within the mask"},
		{sets.V4, "ct status dnat accept", 4, `"state"`},
		{sets.V4, "ct state old accept", 10, "new, established"},
		{sets.V4, "ct state new,, accept", 14, "new, established"},
		{sets.V4, "ct state != new,related accept", 10, "braces"},
		{sets.V4, "ct state ! != new accept", 12, "new, established"},
		{sets.V4, "limit 10/second", 7, `"rate"`},
		{sets.V4, "limit rate 0/second", 12, "a rate"},
		{sets.V4, "limit rate 10/week", 12, "a rate"},
		{sets.V4, "limit rate 10 mbytes/second", 12, "a rate"},
		{sets.V4, "limit rate 1/second burst 0 packets", 27, "a number of packets"},
		{sets.V4, "limit rate 1/second burst 10 accept", 30, `"packets"`},
		{sets.V4, `log prefix "x`, 12, "a quote at its end"},
		{sets.V4, `log prefix "$x"`, 12, "without $"},
		{sets.V4, "log prefix \"a\tb\"", 12, "printable"},
		{sets.V4, `log prefix "` + strings.Repeat("x", 128) + `"`, 12, "127 bytes"},
		{sets.V4, "log group 5", 5, "a prefix or a level"},
		{sets.V4, "log level audit", 11, "emerg"},
		{sets.V4, "log level info level info", 16, "each once"},
		{sets.V4, "reject with icmp", 17, "a code of icmp"},
		{sets.V4, "reject with icmp 7", 18, "a code of icmp"},
		{sets.V4, "reject with udp", 13, "icmpx or tcp reset"},
		{sets.V4, "reject with tcp rst", 17, `"reset"`},
		{sets.V4, "udp dport 53 reject with tcp reset", 14, "about TCP alone"},
		{sets.V4, "meta l4proto { tcp, udp } reject with tcp reset", 27, "about TCP alone"},
		{sets.V4, "jump other", 1, "ip, ip6"},
		{sets.V4, "accept drop", 8, "last of a rule"},
		{sets.V4, "drop counter", 6, "last of a rule"},
		{sets.V4, "comment x accept", 11, "last of a rule"},
		{sets.V4, `accept comment "` + strings.Repeat("x", 128) + `"`, 16, "127 bytes"},
	} {
		_, err := custom.Parse("dir/file", strings.NewReader("accept\n"+tt.in+"\naccept"), tt.family)
		var syntax *custom.SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		if syntax.File != "dir/file" || syntax.Line != 2 || syntax.Column != tt.column || !strings.Contains(syntax.Want, tt.want) {
			t.Errorf("%s: %v, want column %d and %q", tt.in, err, tt.column, tt.want)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("more than a line: %v", err)
		}
	}
}

func TestTooLong(t *testing.T) {
	if _, err := custom.Parse("file", strings.NewReader(strings.Repeat("#", 1<<20+1)), sets.V4); err == nil {
		t.Error("a file of more than a megabyte is taken")
	}
}

// TestSetsAreNamedByContent checks that lists with equal content are the same set, and that sets of different types are not.
func TestSetsAreNamedByContent(t *testing.T) {
	r := parse(t, "tcp dport { 6, 7, 17 } accept\nudp sport { 6-7, 0x11 } accept\nmeta l4proto { 6-7, udp } accept\n", sets.V4)
	if len(r.Sets) != 2 || r.Sets[0].Name == r.Sets[1].Name {
		t.Fatalf("%d sets: %v", len(r.Sets), r.Sets)
	}
	other := parse(t, "meta mark { 1-2, 5 } accept\nth dport { 6-7, 17 } accept", sets.V6)
	if !slices.ContainsFunc(other.Sets, func(s custom.Set) bool { return s.Name == r.Sets[0].Name }) {
		t.Errorf("the same list has other names: %v, %v", r.Sets, other.Sets)
	}
}
