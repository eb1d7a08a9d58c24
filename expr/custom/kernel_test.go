package custom_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/nft"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

func TestMain(m *testing.M) { lab.Main(m) }

// everyForm returns a table of the family with each form as a rule, for both families of IP.
func everyForm(t *testing.T, family expr.TableFamily) engine.Ruleset {
	t.Helper()
	var file [2]strings.Builder
	for i, f := range sets.Families {
		for _, form := range forms(f) {
			fmt.Fprintln(&file[i], form.line)
		}
	}
	common := cache.Common{V4: parse(t, file[0].String(), sets.V4), V6: parse(t, file[1].String(), sets.V6)}
	return cache.Trial(cache.Options{Ingress: common, Egress: common})[family]
}

// withoutTracking leaves out the rules that need connection tracking.
func withoutTracking(rs engine.Ruleset) engine.Ruleset {
	chains := slices.Clone(rs.Chains)
	for i, c := range chains {
		rules := slices.DeleteFunc(slices.Clone(c.Rules), func(r engine.Rule) bool { return strings.Contains(r.Text(), "ct ") })
		chains[i] = &engine.Chain{Name: c.Name, Hook: c.Hook, Rules: rules}
	}
	return engine.Ruleset{Sets: rs.Sets, Chains: chains}
}

// TestSameAsNFT lets stock nft compile each form, and lets the engine write the table. The kernel must dump the same rules for
// both, except for the names of sets.
func TestSameAsNFT(t *testing.T) {
	want := everyForm(t, engine.Inet)
	h, err := lab.ForTest(t).Host("nft")
	if err != nil {
		t.Fatal(err)
	}
	apply(t, h, engine.Inet, want)
	err = h.Do(func() error {
		for _, f := range sets.Families {
			chain := "custom-" + f.String() + "-ingress"
			script := fmt.Sprintf("table inet t { chain %s { }; }\n", chain)
			for _, form := range forms(f) {
				same := cmp.Or(form.nft, form.line)
				if form.nft == otherwise {
					same = form.line
				}
				script += fmt.Sprintf("add rule inet t %s %s\n", chain, same)
			}
			nft.MustRun(t, h, script, "--file", "-")
			theirs, ours := dump(t, "t", chain), dump(t, engine.TableName, chain)
			for i, form := range forms(f) {
				if diff := gocmp.Diff(theirs[i], ours[i]); diff != "" && form.nft != otherwise {
					t.Errorf("%s (-nft +ours):\n%s", form.line, diff)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestTableOfEveryForm checks that the kernel accepts all forms, that nft prints them as Render does and can read its output
// back, and that a restarted agent finds nothing to change.
func TestTableOfEveryForm(t *testing.T) {
	for _, f := range expr.TableFamilies {
		t.Run(f.String(), func(t *testing.T) { testTableOfEveryForm(t, f) })
	}
}

func testTableOfEveryForm(t *testing.T, f expr.TableFamily) {
	want := everyForm(t, f)
	if err := engine.Try(f, want); errors.Is(err, unix.EPROTO) {
		t.Log("this kernel has no connection tracking for bridges, so this test is without it")
		want = withoutTracking(want)
	}
	l := lab.ForTest(t)
	h, err := l.Host("pod")
	if err != nil {
		t.Fatal(err)
	}
	apply(t, h, f, want)
	listing := ""
	if err := h.Do(func() error {
		listing = nft.MustRun(t, h, "", "--stateless", "list", "table", f.String(), engine.TableName)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var rendered bytes.Buffer
	if err := engine.Render(&rendered, f, want); err != nil {
		t.Fatal(err)
	}
	// nft breaks long lists of elements where it likes.
	if diff := gocmp.Diff(fold(rendered.String()), fold(listing)); diff != "" {
		t.Errorf("(-rendered +nft):\n%s", diff)
	}
	other, err := l.Host("other")
	if err != nil {
		t.Fatal(err)
	}
	reloads := lab.LoadsNFTPorts(t, other)
	if reloads {
		if err := other.Do(func() error { nft.MustRun(t, h, listing, "--check", "--file", "-"); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if s := apply(t, h, f, want); s.Batches != 0 || s.ReadBacks != 1 {
		t.Errorf("a restart sent something: %+v", s)
	}
	if !reloads {
		t.Skip(lab.NFTPortsRefused)
	}
}

// TestRestartRepairs checks that a restarted agent finds foreign changes in a set of numbers, and undoes them in one batch.
func TestRestartRepairs(t *testing.T) {
	rules := parse(t, "tcp dport { 80-90, 443 } accept\nmeta mark { 1, 4-7 } accept", sets.V4)
	want := cache.Trial(cache.Options{Ingress: cache.Common{V4: rules}})[engine.Inet]
	h, err := lab.ForTest(t).Host("pod")
	if err != nil {
		t.Fatal(err)
	}
	apply(t, h, engine.Inet, want)
	ports, marks := rules.Sets[0].Name, rules.Sets[1].Name
	for _, change := range []string{
		"add element inet multi_networkpolicy " + ports + " { 22 }",
		"delete element inet multi_networkpolicy " + ports + " { 443 }",
		"add element inet multi_networkpolicy " + ports + " { 91 }", // a neighbor, not merged
		"flush set inet multi_networkpolicy " + marks,
		"add set inet multi_networkpolicy more { type inet_service; flags interval; }",
		"add set inet multi_networkpolicy more { type mark; }",
	} {
		if err := h.Do(func() error { nft.MustRun(t, h, change, "--file", "-"); return nil }); err != nil {
			t.Fatal(err)
		}
		if s := apply(t, h, engine.Inet, want); s.Batches != 1 {
			t.Errorf("%s: %+v", change, s)
		}
		if s := apply(t, h, engine.Inet, want); s.Batches != 0 {
			t.Errorf("%s, once more: %+v", change, s)
		}
	}
}

// fold sorts the sets and chains of a listing by name, since nft lists chains in the order of their creation. It joins the
// elements of each set into a line.
func fold(listing string) []string {
	listing = regexp.MustCompile(`,\s+`).ReplaceAllString(listing, ", ")
	_, listing, _ = strings.Cut(listing, "{\n")
	objects := strings.Split(listing, "\n\t}\n")
	for i := range objects {
		objects[i] = strings.TrimPrefix(objects[i], "\n")
	}
	slices.Sort(objects)
	return objects
}

// apply brings the table to the host by an Engine of its own.
func apply(t *testing.T, h *lab.Host, f expr.TableFamily, rs engine.Ruleset) engine.Stats {
	t.Helper()
	e, err := engine.Open("default/pod", h.NetNS(), engine.Options{Family: f})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Apply(context.Background(), rs); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return e.Stats()
}

// dump returns the rules of a chain as the kernel dumps them, with the content of sets in place of their names.
func dump(t *testing.T, table, chain string) []string {
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
		{Type: unix.NFTA_RULE_TABLE, Data: append([]byte(table), 0)},
		{Type: unix.NFTA_RULE_CHAIN, Data: append([]byte(chain), 0)},
	})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, filter...),
	})
	if err != nil {
		t.Fatal(err)
	}
	contents := strings.NewReplacer(setContents(t, table)...)
	var texts []string
	for _, m := range messages {
		attributes, err := netlink.UnmarshalAttributes(m.Data[4:])
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range attributes {
			if a.Type&^unix.NLA_F_NESTED != unix.NFTA_RULE_EXPRESSIONS {
				continue
			}
			text, err := expr.Canonical(a.Data)
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, contents.Replace(text))
		}
	}
	return texts
}

// setContents pairs the name of each set, as in the text of Canonical, with the content of the set.
func setContents(t *testing.T, table string) []string {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	all, err := c.GetSets(&nftables.Table{Name: table, Family: nftables.TableFamilyINet})
	if err != nil {
		t.Fatal(err)
	}
	var pairs []string
	for _, s := range all {
		elements, err := c.GetSetElements(s)
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, "="+hex.EncodeToString(append([]byte(s.Name), 0))+" ", "="+content(elements, s.Interval)+" ")
	}
	return pairs
}

// content returns the elements as merged ranges, "from-after": after is the first value behind the range, and is empty for a
// range up to the greatest value.
func content(elements []nftables.SetElement, isInterval bool) string {
	type edge struct {
		key   string
		isEnd bool
	}
	var edges []edge
	for _, e := range elements {
		edges = append(edges, edge{hex.EncodeToString(e.Key), e.IntervalEnd})
		if !isInterval && strings.Trim(hex.EncodeToString(e.Key), "f") != "" {
			edges = append(edges, edge{hex.EncodeToString(after(e.Key)), true})
		}
	}
	slices.SortFunc(edges, func(a, b edge) int {
		if c := cmp.Compare(a.key, b.key); c != 0 || a.isEnd == b.isEnd {
			return c
		}
		if a.isEnd {
			return -1
		}
		return 1
	})
	if len(edges) > 0 && edges[0].isEnd { // nft starts a set with such an element
		edges = edges[1:]
	}
	var kept []edge
	for i := 0; i < len(edges); i++ {
		if i+1 < len(edges) && edges[i].isEnd && !edges[i+1].isEnd && edges[i].key == edges[i+1].key {
			i++
			continue
		}
		kept = append(kept, edges[i])
	}
	var b strings.Builder
	for _, e := range kept {
		if e.isEnd {
			b.WriteString("-" + e.key)
		} else {
			b.WriteString("," + e.key)
		}
	}
	return b.String()
}

// after returns the next number.
func after(key []byte) []byte {
	next := bytes.Clone(key)
	for i := len(next) - 1; i >= 0; i-- {
		if next[i]++; next[i] != 0 {
			break
		}
	}
	return next
}
