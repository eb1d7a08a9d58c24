package expr_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/nft"
)

func TestMain(m *testing.M) { lab.Main(m) }

// scaffold holds the sets and chains that the vocabulary refers to.
const scaffold = `table inet t {
	set peers-v4 { type ipv4_addr; flags interval; }
	set peers-v6 { type ipv6_addr; flags interval; }
	set ports { type inet_service . inet_proto; flags interval; }
	set endpoints-v4 { type ipv4_addr . inet_proto . inet_service; }
	set endpoints-v6 { type ipv6_addr . inet_proto . inet_service; }
	set custom-inet_service { type inet_service; flags interval; }
	set custom-inet_proto { type inet_proto; flags interval; }
	set custom-icmp_type { type icmp_type; flags interval; }
	set custom-icmpv6_type { type icmpv6_type; flags interval; }
	set custom-mark { type mark; flags interval; }
	chain other { }
	chain nft { }
	chain ours { }
}
`

// TestSameAsNFT adds each statement to a table twice: stock nft compiles its text, and the test sends its bytecode. The kernel
// must dump the same expressions for both rules, and nft must print both as the text.
func TestSameAsNFT(t *testing.T) {
	h, err := lab.ForTest(t).Host("nft")
	if err != nil {
		t.Fatal(err)
	}
	statements, loads := vocabulary(), lab.LoadsNFTPorts(t, h)
	if !loads {
		statements = slices.DeleteFunc(statements, func(s expr.Statement) bool { return strings.Contains(s.Text, ". meta l4proto @ports") })
	}
	err = h.Do(func() error {
		script := scaffold
		for _, s := range statements {
			script += "add rule inet t nft " + s.Text + "\n"
		}
		nft.MustRun(t, h, script, "--file", "-")
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := &nftables.Table{Family: nftables.TableFamilyINet, Name: "t"}
		ours := &nftables.Chain{Table: table, Name: "ours"}
		for _, s := range statements {
			c.AddRule(&nftables.Rule{Table: table, Chain: ours, Exprs: s.Exprs})
		}
		if err := c.Flush(); err != nil {
			return err
		}
		theirs, mine := dump(t, "nft"), dump(t, "ours")
		for i, s := range statements {
			if diff := cmp.Diff(theirs[i], mine[i]); diff != "" {
				t.Errorf("%s (-nft +ours):\n%s", s.Text, diff)
			}
			marshaled, err := expr.Marshal(expr.Inet, []expr.Statement{s})
			if err != nil {
				t.Fatal(err)
			}
			sent, err := expr.Canonical(marshaled)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(sent, mine[i]); diff != "" {
				t.Errorf("%s (-sent +dumped):\n%s", s.Text, diff)
			}
		}
		for _, chain := range []string{"nft", "ours"} {
			printed := rules(nft.MustRun(t, h, "", "--stateless", "list", "chain", "inet", "t", chain))
			for i, s := range statements {
				if printed[i] != s.Text {
					t.Errorf("nft prints rule %d of chain %s as %q, want %q", i, chain, printed[i], s.Text)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !loads {
		t.Skip(lab.NFTPortsRefused)
	}
}

// byteorderNop is an expression that nft 1.0.6 adds after meta l4proto in a concatenation with ranges. It swaps pairs of bytes
// in a single byte, so it does nothing. Package expr does not write it.
var byteorderNop = regexp.MustCompile(`byteorder\{ 1=00000009 2=00000009 3=00000001 4=00000001 5=00000002 \}`)

// dump returns the canonical texts of the rules of a chain, as the kernel dumps them.
func dump(t *testing.T, chain string) []string {
	t.Helper()
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	filter, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: []byte("t\x00")},
		{Type: unix.NFTA_RULE_CHAIN, Data: append([]byte(chain), 0)},
	})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := c.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE,
			Flags: netlink.Request | netlink.Dump,
		},
		Data: append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, filter...),
	})
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, m := range messages {
		for _, a := range attributes(t, m.Data[4:]) {
			if a.Type != unix.NFTA_RULE_EXPRESSIONS {
				continue
			}
			text, err := expr.Canonical(a.Data)
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, byteorderNop.ReplaceAllString(text, ""))
		}
	}
	return texts
}

// rules returns the lines of a listed chain between its braces.
func rules(listing string) []string {
	var list []string
	for _, line := range strings.Split(listing, "\n")[2:] {
		if line = strings.TrimSpace(line); line != "}" && line != "" {
			list = append(list, line)
		}
	}
	return list
}
