package command

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/spf13/pflag"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/custom"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// commonOptions are the flags with rules for all isolated interfaces, which come before the policies.
// The rules are the same in the tables of all pods. Without the flags there are none.
type commonOptions struct {
	acceptICMP   bool
	acceptICMPv6 bool

	// Paths of files with custom rules; empty: none.
	// Each file has the rules of a family and a direction. Its syntax is that of the package custom.
	v4Ingress, v4Egress, v6Ingress, v6Egress string // paths of files

	// Lists of prefixes. source applies to ingress and destination to egress, where the address is the peer's. ipv6Source and
	// ipv6Destination apply to both directions, as in multi-networkpolicy-iptables.
	source, destination, ipv6Source, ipv6Destination []string
}

// addFlags adds the flags. Their names are those of multi-networkpolicy-iptables, so that its manifests keep working.
func (o *commonOptions) addFlags(flags *pflag.FlagSet) {
	flags.BoolVar(&o.acceptICMP, "accept-icmp", false, "let all ICMP pass")
	flags.BoolVar(&o.acceptICMPv6, "accept-icmpv6", false, "let all ICMPv6 pass; neighbor discovery always does")
	for _, f := range []struct {
		path              *string
		family, direction string
	}{
		{&o.v4Ingress, "v4", "ingress"}, {&o.v4Egress, "v4", "egress"}, {&o.v6Ingress, "v6", "ingress"}, {&o.v6Egress, "v6", "egress"},
	} {
		flags.StringVar(f.path, "custom-"+f.family+"-"+f.direction+"-rule-file", "",
			"file with nft rules for IP"+f.family+" "+f.direction+" traffic, evaluated before the policies")
	}
	addList(flags, &o.source, "allow-src-prefix", "", "let ingress traffic from these prefixes pass")
	addList(flags, &o.destination, "allow-dst-prefix", "", "let egress traffic to these prefixes pass")
	addList(flags, &o.ipv6Source, "allow-ipv6-src-prefix", "", "let traffic from these IPv6 prefixes pass, ingress and egress")
	addList(flags, &o.ipv6Destination, "allow-ipv6-dst-prefix", "", "let traffic to these IPv6 prefixes pass, ingress and egress")
}

// load puts the flags, and the rules in the files that they name, into the options of a cache. All errors are found
// before the cache exists.
func (o *commonOptions) load(to *cache.Options) error {
	to.AcceptICMP, to.AcceptICMPv6 = o.acceptICMP, o.acceptICMPv6
	if err := o.readFiles(to); err != nil {
		return err
	}
	return o.readPrefixes(to)
}

// readFiles reads the files of custom rules. With --established=revoke, rules about ct state are an error: the rules would apply
// to established connections too.
func (o *commonOptions) readFiles(to *cache.Options) error {
	for _, f := range []struct {
		path   string
		family sets.Family
		rules  *custom.Rules
	}{
		{o.v4Ingress, sets.V4, &to.Ingress.V4},
		{o.v4Egress, sets.V4, &to.Egress.V4},
		{o.v6Ingress, sets.V6, &to.Ingress.V6},
		{o.v6Egress, sets.V6, &to.Egress.V6},
	} {
		if f.path == "" {
			continue
		}
		rules, err := readRules(f.path, f.family)
		if err != nil {
			return fmt.Errorf("custom rules: %w", err)
		}
		// A rule that asks for ct state would let packets pass that revoke must judge again.
		for i, r := range rules.Rules {
			if to.RevokeEstablished && r.AsksState {
				return fmt.Errorf("custom rules: rule %d of %s asks for ct state, but with --established=revoke the rules see every packet",
					i+1, f.path)
			}
		}
		*f.rules = rules
	}
	return nil
}

// readRules reads a file of custom rules for packets of a family.
// The path is only for messages of the parser.
func readRules(path string, f sets.Family) (custom.Rules, error) {
	file, err := os.Open(path)
	if err != nil {
		return custom.Rules{}, err
	}
	defer file.Close()
	return custom.Parse(path, file, f)
}

// readPrefixes parses the prefixes.
// Each text must be a prefix with its length, such as 10.0.0.0/8.
func (o *commonOptions) readPrefixes(to *cache.Options) error {
	for _, list := range []struct {
		flag       string
		prefixes   []string
		onlyIPv6   bool
		directions []*sets.Addrs
	}{
		{"allow-src-prefix", o.source, false, []*sets.Addrs{&to.Ingress.Sources}},
		{"allow-dst-prefix", o.destination, false, []*sets.Addrs{&to.Egress.Destinations}},
		{"allow-ipv6-src-prefix", o.ipv6Source, true, []*sets.Addrs{&to.Ingress.Sources, &to.Egress.Sources}},
		{"allow-ipv6-dst-prefix", o.ipv6Destination, true, []*sets.Addrs{&to.Ingress.Destinations, &to.Egress.Destinations}},
	} {
		for _, text := range list.prefixes {
			prefix, err := netip.ParsePrefix(text)
			if err != nil {
				err = fmt.Errorf("%q is not a prefix such as 10.0.0.0/8 or fd00::/8", text)
			}
			// An IPv4-mapped prefix is a prefix of IPv4.
			if err == nil && list.onlyIPv6 && prefix.Addr().Unmap().Is4() {
				err = fmt.Errorf("%q is not of IPv6", text)
			}
			if err != nil {
				return fmt.Errorf("--%s: %w", list.flag, err)
			}
			// The lists of several flags are united.
			for _, addrs := range list.directions {
				*addrs = addrs.Insert(sets.PrefixRange(prefix))
			}
		}
	}
	return nil
}
