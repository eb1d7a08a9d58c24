package command

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

func ruleFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rules.nft")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func loadFlags(t *testing.T, args ...string) (cache.Options, error) {
	t.Helper()
	var o commonOptions
	flags := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	o.addFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	var to cache.Options
	return to, o.load(&to)
}

// TestPrefixFlags checks that the IPv6 flags apply to both directions, as in multi-networkpolicy-iptables, and that the other
// flags apply where the prefix is the peer.
func TestPrefixFlags(t *testing.T) {
	o, err := loadFlags(t, "--allow-src-prefix=10.1.0.0/16,fd01::/16", "--allow-dst-prefix", "10.2.0.0/16, fd02::/16",
		"--allow-ipv6-src-prefix=fd03::/16", "--allow-ipv6-dst-prefix=fd04::1/16,fd05::/16", "--allow-ipv6-dst-prefix=fd06::/16")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		got  sets.Addrs
		want string
	}{
		"ingress from": {o.Ingress.Sources, "10.1.0.1 fd01::1 fd03::1"},
		"ingress to":   {o.Ingress.Destinations, "fd04::1 fd05::1 fd06::1"},
		"egress from":  {o.Egress.Sources, "fd03::1"},
		"egress to":    {o.Egress.Destinations, "10.2.0.1 fd02::1 fd04::1 fd05::1 fd06::1"},
	} {
		for _, text := range strings.Fields("10.1.0.1 10.2.0.1 10.3.0.1 fd00::1 fd01::1 fd02::1 fd03::1 fd04::1 fd05::1 fd06::1 fd07::1") {
			want := strings.Contains(" "+tt.want+" ", " "+text+" ")
			if got := tt.got.Contains(netip.MustParseAddr(text)); got != want {
				t.Errorf("%s %s: %v, want %v", name, text, got, want)
			}
		}
	}
}

func TestRuleFileFlags(t *testing.T) {
	file := ruleFile(t, "# DHCP\nudp dport { bootpc, bootps } accept\n\nlog prefix \"other \" limit rate 1/second\n")
	o, err := loadFlags(t, "--custom-v4-ingress-rule-file", file, "--custom-v6-egress-rule-file", file)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ got, want int }{
		"v4 ingress": {len(o.Ingress.V4.Rules), 2}, "v6 ingress": {len(o.Ingress.V6.Rules), 0},
		"v4 egress": {len(o.Egress.V4.Rules), 0}, "v6 egress": {len(o.Egress.V6.Rules), 2},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %d rules, want %d", name, tt.got, tt.want)
		}
	}
	if err := engine.Try(engine.Inet, cache.Trial(o)[engine.Inet]); err != nil {
		t.Error(err)
	}
}

// TestBadCommonFlags checks that an invalid prefix or file ends the start at once, with a single line.
func TestBadCommonFlags(t *testing.T) {
	for want, args := range map[string][]string{
		`:2:4: found "protocol"`: {"--custom-v4-ingress-rule-file", ruleFile(t, "\nip protocol tcp accept\n")},
		`nothing of IPv6`:        {"--custom-v4-egress-rule-file", ruleFile(t, "ip6 saddr fd00::1 accept")},
		`nothing of IPv4`:        {"--custom-v6-ingress-rule-file", ruleFile(t, "ip saddr 10.0.0.1 accept")},
		`not of iptables`:        {"--custom-v6-egress-rule-file", ruleFile(t, "-p tcp -j ACCEPT")},
		"no such file":           {"--custom-v6-egress-rule-file", "/does/not/exist"},
		`--allow-src-prefix: "10.0.0.1" is not a prefix such as`: {"--allow-src-prefix", "10.0.0.1"},
		`--allow-dst-prefix: "x" is not a prefix`:                {"--allow-dst-prefix", "10.0.0.0/8,x"},
		`--allow-ipv6-src-prefix: "10.0.0.0/8" is`:               {"--allow-ipv6-src-prefix", "10.0.0.0/8"},
		`rule 2 of`:                            {"--established=revoke", "--custom-v4-ingress-rule-file", ruleFile(t, "drop\nct state new accept")},
		`"::ffff:10.0.0.0/104" is not of IPv6`: {"--allow-ipv6-dst-prefix", "::ffff:10.0.0.0/104"},
	} {
		var stdout, stderr bytes.Buffer
		code := Main("", args, &stdout, &stderr)
		if code != 1 || stdout.Len() > 0 || strings.Count(stderr.String(), "\n") != 1 || !strings.Contains(stderr.String(), want) {
			t.Errorf("%v: exit code %d, stdout %q, stderr %q, want %q", args, code, stdout.String(), stderr.String(), want)
		}
	}
}
