package engine

import (
	"strings"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

const somePolicy = "64deb0d0ffca6eeb"

// TestChainNames pins the names, which users' scripts and running tables depend on, and parses each of them.
func TestChainNames(t *testing.T) {
	for name, tt := range map[string]struct {
		made   string
		parsed ChainName
	}{
		"prerouting":                      {string(HookPrerouting), ChainName{ID: "prerouting"}},
		"forward":                         {string(HookForward), ChainName{Direction: Egress, ID: "forward"}},
		"output":                          {string(HookOutput), ChainName{Direction: Egress, ID: "output"}},
		"self-ingress":                    {SelfChain(Ingress), ChainName{Kind: KindSelf}},
		"ingress-net1":                    {InterfaceChain(Ingress, "net1"), ChainName{Kind: KindInterface, ID: "net1"}},
		"egress-net1.100":                 {InterfaceChain(Egress, "net1.100"), ChainName{Kind: KindInterface, Direction: Egress, ID: "net1.100"}},
		"ingress-n_t-856e59b8b040dfdb":    {InterfaceChain(Ingress, "n@t"), ChainName{Kind: KindInterface, ID: "n_t-856e59b8b040dfdb"}},
		"ingress-policy-1":                {InterfaceChain(Ingress, "policy-1"), ChainName{Kind: KindInterface, ID: "policy-1"}},
		"ingress-policy-64deb0d0ffca6eeb": {PolicyChain(Ingress, somePolicy), ChainName{Kind: KindPolicy, ID: somePolicy}},
		"egress-policy-64deb0d0ffca6eeb":  {PolicyChain(Egress, somePolicy), ChainName{Kind: KindPolicy, Direction: Egress, ID: somePolicy}},
		"ingress-ports-64deb0d0ffca6eeb-net1": {
			PortsChain(Ingress, "net1", somePolicy), ChainName{Kind: KindPorts, Ports: somePolicy, ID: "net1"},
		},
		"replies-egress-ports-64deb0d0ffca6eeb-n_t-856e59b8b040dfdb": {
			RepliesPrefix + PortsChain(Egress, "n@t", somePolicy),
			ChainName{Kind: KindPorts, Direction: Egress, Replies: true, Ports: somePolicy, ID: "n_t-856e59b8b040dfdb"},
		},
		"ingress-ports-1":        {InterfaceChain(Ingress, "ports-1"), ChainName{Kind: KindInterface, ID: "ports-1"}},
		"common-ingress":         {CommonChain(Ingress), ChainName{Kind: KindCommon}},
		"common-egress":          {CommonChain(Egress), ChainName{Kind: KindCommon, Direction: Egress}},
		"custom-v4-ingress":      {CustomChain(Ingress, sets.V4), ChainName{Kind: KindCustom, Family: sets.V4}},
		"custom-v6-egress":       {CustomChain(Egress, sets.V6), ChainName{Kind: KindCustom, Direction: Egress, Family: sets.V6}},
		"replies-egress-net1":    {RepliesPrefix + InterfaceChain(Egress, "net1"), ChainName{Kind: KindInterface, Direction: Egress, Replies: true, ID: "net1"}},
		"replies-common-ingress": {RepliesPrefix + CommonChain(Ingress), ChainName{Kind: KindCommon, Replies: true}},
	} {
		if tt.made != name {
			t.Errorf("made %q, want %q", tt.made, name)
		}
		parsed, ok := ParseChain(name)
		if !ok || parsed != tt.parsed {
			t.Errorf("ParseChain(%q) = %+v, %v, want %+v", name, parsed, ok, tt.parsed)
		}
		if parsed.String() != name {
			t.Errorf("%+v is spelled %q, want %q", parsed, parsed, name)
		}
	}
}

func TestSetNames(t *testing.T) {
	for want, got := range map[string]string{
		"peers-64deb0d0ffca6eeb-v4":      GroupSet(PeerGroup, somePolicy, sets.V4),
		"endpoints-64deb0d0ffca6eeb-v6":  GroupSet(EndpointGroup, somePolicy, sets.V6),
		"peers-64deb0d0ffca6eeb-v4-pods": PodsSet(GroupSet(PeerGroup, somePolicy, sets.V4)),
		"ports-64deb0d0ffca6eeb":         PortSet(somePolicy),
		"allow-ingress-source-v4":        AllowSet(Ingress, SourceField, sets.V4),
		"allow-egress-destination-v6":    AllowSet(Egress, DestinationField, sets.V6),
		"allow-egress-source-v6":         AllowSet(Egress, SourceField, sets.V6),
	} {
		if got != want {
			t.Errorf("made %q, want %q", got, want)
		}
	}
}

func TestParseChainRefuses(t *testing.T) {
	for _, name := range []string{
		"", "c", "ingress", "ingress-", "common", "common-", "common-net1", "custom-v4", "custom-v5-ingress", "replies-",
		"input", "replies-prerouting", "replies-replies-ingress-net1", "trace-net1",
	} {
		if parsed, ok := ParseChain(name); ok || parsed != (ChainName{}) {
			t.Errorf("ParseChain(%q) = %+v, %v", name, parsed, ok)
		}
	}
}

// FuzzInterfaceChain: the chain of an interface is parsed as such, whatever a pod names its interface, and two interfaces
// never share a chain.
func FuzzInterfaceChain(f *testing.F) {
	for _, iface := range []string{"net1", "policy-1", "policy-é", "policy-\xff", "a b", "-", "policy-0123456", "ports-012345678", "ports-01234567@"} {
		f.Add(iface, "net1")
	}
	f.Fuzz(func(t *testing.T, iface, other string) {
		const maxLen = 15 // IFNAMSIZ without the NUL
		if iface == "" || len(iface) > maxLen || len(other) > maxLen {
			return
		}
		for _, d := range Directions {
			name := InterfaceChain(d, iface)
			parsed, ok := ParseChain(name)
			if !ok || parsed.Kind != KindInterface || parsed.Direction != d || parsed.Replies || parsed.String() != name {
				t.Errorf("ParseChain(%q) = %+v, %v", name, parsed, ok)
			}
			if strings.Trim(parsed.ID, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != "" {
				t.Errorf("nft does not accept %q", name)
			}
			if other != iface && InterfaceChain(d, other) == name {
				t.Errorf("%q and %q share the chain %q", iface, other, name)
			}
		}
	})
}

// FuzzParseChain: a name that is parsed is spelled from its parts again.
func FuzzParseChain(f *testing.F) {
	for _, name := range []string{"prerouting", "ingress-net1", "replies-egress-policy-" + somePolicy, "egress-ports-" + somePolicy + "-net1", "custom-v6-egress", "common-ingress"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if parsed, ok := ParseChain(name); ok && parsed.String() != name {
			t.Errorf("%q is parsed as %+v, spelled %q", name, parsed, parsed)
		}
	})
}
