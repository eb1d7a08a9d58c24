package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/nft"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

func TestMain(m *testing.M) { lab.Main(m) }

// pod is a network namespace of the test's own and an Engine in it.
func pod(t testing.TB, l *lab.Lab, name string, prefixes ...netip.Prefix) (*lab.Host, *Engine) {
	t.Helper()
	h, err := l.Host(name, prefixes...)
	if err != nil {
		t.Fatal(err)
	}
	return h, openEngine(t, h)
}

func openEngine(t testing.TB, h *lab.Host) *Engine {
	t.Helper()
	e, err := Open("default/pod", h.NetNS(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func apply(t testing.TB, e *Engine, rs Ruleset) {
	t.Helper()
	if err := e.Apply(context.Background(), rs); err != nil {
		t.Fatal(err)
	}
}

// listTable returns what nft prints. While the kernel resizes the hash of a set, its dump repeats some elements and lacks others, so
// listTable lists such a table again.
func listTable(t testing.TB, h *lab.Host) string {
	t.Helper()
	for range 100 {
		listing := nft.MustRun(t, h, "", "--stateless", "list", "ruleset")
		if !slices.ContainsFunc(strings.Split(listing, "elements = {")[1:], repeatsElements) {
			return listing
		}
	}
	t.Fatal("nft repeats elements of a set")
	return ""
}

// repeatsElements reports whether the listing of a set, from its first element on, has an element twice.
func repeatsElements(set string) bool {
	list, _, _ := strings.Cut(set, "}")
	seen := map[string]bool{}
	for element := range strings.SplitSeq(list, ",") {
		element = strings.TrimSpace(element)
		if seen[element] {
			return true
		}
		seen[element] = true
	}
	return false
}

func rendered(t testing.TB, rs Ruleset) string {
	t.Helper()
	var b strings.Builder
	if err := Render(&b, Inet, rs); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// normal is a listing without what is nft's choice: the objects and the elements of a set sorted, white space folded.
func normal(listing string) []string {
	var objects []string
	for _, object := range strings.Split(listing, "\n\t}\n") {
		object = strings.Join(strings.Fields(object), " ")
		if before, after, ok := strings.Cut(object, "elements = { "); ok {
			elements := strings.Split(strings.TrimSuffix(after, " }"), ", ")
			slices.Sort(elements)
			object = before + strings.Join(elements, ", ")
		}
		objects = append(objects, strings.TrimPrefix(object, "table inet multi_networkpolicy { "))
	}
	slices.Sort(objects)
	return objects
}

// TestKernelHoldsWhatWasWanted plays random rulesets into one namespace. After each, stock nft prints what Render does,
// takes back both texts, and the same ruleset again is no batch.
func TestKernelHoldsWhatWasWanted(t *testing.T) {
	t.Run("one batch", func(t *testing.T) { kernelHoldsWhatWasWanted(t, batchBudget) })
	t.Run("steps", func(t *testing.T) { kernelHoldsWhatWasWanted(t, tinyBudget) })
}

func kernelHoldsWhatWasWanted(t *testing.T, budget time.Duration) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	l := lab.ForTest(t)
	h, e := pod(t, l, "pod")
	e.budget = budget
	other, err := l.Host("other")
	if err != nil {
		t.Fatal(err)
	}
	reloads := lab.LoadsNFTPorts(t, other)
	for step := range 40 {
		want := randomRuleset(r)
		apply(t, e, want)
		listing := listTable(t, h)
		if diff := cmp.Diff(normal(rendered(t, want)), normal(listing)); diff != "" {
			t.Fatalf("step %d (-rendered +nft):\n%s", step, diff)
		}
		if reloads {
			nft.MustRun(t, other, listing, "--check", "--file", "-")
			nft.MustRun(t, other, rendered(t, want), "--check", "--file", "-")
		}
		before := lab.Generation(t, h)
		apply(t, e, want)
		if after := lab.Generation(t, h); after != before {
			t.Fatalf("step %d: the second Apply sent a batch", step)
		}
	}
	if !reloads {
		t.Skip(lab.NFTPortsRefused)
	}
}

// TestNothingWantedNothingThere: where no table is, none is removed.
func TestNothingWantedNothingThere(t *testing.T) {
	h, e := pod(t, lab.ForTest(t), "pod")
	before := lab.Generation(t, h)
	apply(t, e, Ruleset{})
	apply(t, e, Ruleset{})
	if after := lab.Generation(t, h); after != before {
		t.Error("a batch was sent")
	}
}

// isolated is a table that lets on net1 only the addresses in, to the TCP port.
func isolated(peers sets.Addrs, port uint16) Ruleset {
	rule := func(comment string, s ...expr.Statement) Rule { return Rule{Statements: s, Comment: comment} }
	ports := fmt.Sprintf("ports-%d", port)
	return NewRuleset(
		[]*Set{
			{Name: "peers-v4", Comment: "peers", Elements: Addrs{sets.V4, peers}},
			{Name: "peers-v6", Comment: "peers", Elements: Addrs{sets.V6, peers}},
			{Name: ports, Elements: Ports{sets.NewPorts(sets.PortRange{Proto: unix.IPPROTO_TCP, From: port, To: port})}},
		},
		[]*Chain{
			{Name: "prerouting", Hook: HookPrerouting, Rules: []Rule{rule("", expr.IIFName("net1"), expr.Goto("ingress-net1"))}},
			{Name: "ingress-net1", Rules: []Rule{
				rule("", expr.Established(), expr.Accept()),
				rule("", append(expr.LinkControl()[0], expr.Accept())...),
				rule("policy", expr.SourceIn(sets.V4, "peers-v4"), expr.PortIn(ports), expr.Accept()),
				rule("policy", expr.SourceIn(sets.V6, "peers-v6"), expr.PortIn(ports), expr.Accept()),
				rule("", expr.Counter(), expr.Drop()),
			}},
		})
}

// TestPackets sends real packets at a table as it is made, changed and removed.
func TestPackets(t *testing.T) {
	ctx, l := context.Background(), lab.ForTest(t)
	server, e := pod(t, l, "server", netip.MustParsePrefix("10.9.0.1/24"), netip.MustParsePrefix("fd09::1/64"))
	client, err := l.Host("client", netip.MustParsePrefix("10.9.0.2/24"), netip.MustParsePrefix("fd09::2/64"))
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range []uint16{80, 81} {
		for _, proto := range []lab.Protocol{lab.TCP, lab.UDP} {
			if err := server.Serve(ctx, proto, port); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(name string, want lab.Verdict, addr string, proto lab.Protocol, port uint16) {
		t.Helper()
		to := netip.AddrPortFrom(netip.MustParseAddr(addr), port)
		if got := lab.Probe(ctx, client, to, proto, 200*time.Millisecond); got.Verdict != want {
			t.Errorf("%s: %s %s: %v, want %v", name, proto, to, got, want)
		}
	}
	both := parseAddrs("10.9.0.2", "fd09::2")
	for _, tt := range []struct {
		name          string
		want          Ruleset
		v4, v6, other lab.Verdict // TCP 80 over each family; TCP 81 and UDP 80
	}{
		{"no table", Ruleset{}, lab.Allowed, lab.Allowed, lab.Allowed},
		{"nobody", isolated(sets.Addrs{}, 80), lab.Dropped, lab.Dropped, lab.Dropped},
		{"v4", isolated(parseAddrs("10.9.0.0/30"), 80), lab.Allowed, lab.Dropped, lab.Dropped},
		{"both", isolated(both, 80), lab.Allowed, lab.Allowed, lab.Dropped},
		{"another port", isolated(both, 82), lab.Dropped, lab.Dropped, lab.Dropped},
		{"everyone", isolated(parseAddrs("0.0.0.0/0", "::/0"), 80), lab.Allowed, lab.Allowed, lab.Dropped},
		{"removed", Ruleset{}, lab.Allowed, lab.Allowed, lab.Allowed},
	} {
		apply(t, e, tt.want)
		check(tt.name, tt.v4, "10.9.0.1", lab.TCP, 80)
		check(tt.name, tt.v6, "fd09::1", lab.TCP, 80)
		check(tt.name, tt.other, "10.9.0.1", lab.TCP, 81)
		check(tt.name, tt.other, "10.9.0.1", lab.UDP, 80)
		check(tt.name, tt.other, "fd09::1", lab.UDP, 80)
	}
}

// TestRefusedBatch: the last good rules stay, the error names pod, operation, object and errno, and the next Apply goes
// on from there.
func TestRefusedBatch(t *testing.T) {
	h, e := pod(t, lab.ForTest(t), "pod")
	apply(t, e, isolated(parseAddrs("10.0.0.1"), 80))
	before := listTable(t, h)

	want := isolated(parseAddrs("10.0.0.1", "10.0.0.2"), 80)
	bad := NewRuleset(slices.Clone(want.Sets), append(slices.Clone(want.Chains), &Chain{
		Name: "bad", Rules: []Rule{{Statements: []expr.Statement{expr.Jump("no-such-chain")}}},
	}))
	err := e.Apply(context.Background(), bad)
	var applyErr *ApplyError
	var messageErr *nfnl.MessageError
	switch {
	case !errors.Is(err, unix.ENOENT), !errors.As(err, &applyErr), !errors.As(err, &messageErr):
		t.Fatalf("error: %v", err)
	case applyErr.Pod != "default/pod", applyErr.Op != "apply", messageErr.Op != "NEWRULE", messageErr.Object != "bad":
		t.Errorf("error: %v", err)
	}
	if diff := cmp.Diff(before, listTable(t, h)); diff != "" {
		t.Errorf("rules in force changed:\n%s", diff)
	}
	apply(t, e, want)
	if diff := cmp.Diff(normal(rendered(t, want)), normal(listTable(t, h))); diff != "" {
		t.Errorf("after the next Apply (-rendered +nft):\n%s", diff)
	}
}

// TestForeignTable: a table of the same name, whatever is in it, is replaced by the first Apply.
func TestForeignTable(t *testing.T) {
	for _, want := range []Ruleset{{}, isolated(parseAddrs("10.0.0.1"), 80)} {
		h, e := pod(t, lab.ForTest(t), "pod")
		nft.MustRun(t, h, `table inet multi_networkpolicy {
			map m { type ifname : verdict; elements = { "net1" : jump peers-v4 } }
			set peers-v4 { type ipv6_addr; }
			chain peers-v4 { accept; }
			chain input { type filter hook input priority -5; policy drop; iifname vmap @m; }
		}`, "--file", "-")
		apply(t, e, want)
		if diff := cmp.Diff(normal(rendered(t, want)), normal(listTable(t, h))); diff != "" {
			t.Errorf("(-rendered +nft):\n%s", diff)
		}
	}
}

// TestOtherTablesStay: what others have in the namespace under other names is not touched.
func TestOtherTablesStay(t *testing.T) {
	h, e := pod(t, lab.ForTest(t), "pod")
	nft.MustRun(t, h, "table ip multi_networkpolicy { chain c { accept; }; }\ntable inet other { set s { type ipv4_addr; }; }\n", "--file", "-")
	before := listTable(t, h)
	apply(t, e, isolated(sets.Addrs{}, 80))
	apply(t, e, Ruleset{})
	if diff := cmp.Diff(before, listTable(t, h)); diff != "" {
		t.Errorf("other tables:\n%s", diff)
	}
}

// TestManyElements: batches of more than a megabyte, of many messages, over the default socket buffer.
func TestManyElements(t *testing.T) {
	h, e := pod(t, lab.ForTest(t), "pod")
	var list []sets.AddrRange
	addr := netip.MustParseAddr("10.0.0.0")
	for range 20_000 {
		list = append(list, sets.Single(addr))
		addr = addr.Next().Next()
	}
	peers := sets.NewAddrs(list...)
	err := e.Apply(context.Background(), isolated(peers, 80))
	if errors.Is(err, unix.EMSGSIZE) {
		needsLargeBuffers(t)
	}
	if err != nil {
		t.Fatal(err)
	}
	apply(t, e, isolated(peers.Insert(sets.Single(addr)), 80))
	// One comma less than elements.
	if got := 1 + strings.Count(nft.MustRun(t, h, "", "list", "set", "inet", TableName, "peers-v4"), ","); got != 20_001 {
		t.Errorf("%d elements in the kernel, want 20001", got)
	}
}

// needsLargeBuffers skips a test where the kernel limits the buffers of sockets: without CAP_NET_ADMIN in the initial user
// namespace (SO_SNDBUFFORCE, SO_RCVBUFFORCE).
func needsLargeBuffers(t *testing.T) {
	t.Helper()
	if uidMap, _ := os.ReadFile("/proc/self/uid_map"); !strings.Contains(string(uidMap), "4294967295") {
		t.Skip("SKIPPED: the test needs large socket buffers")
	}
}

// TestManyRules: all rules of a long chain in force change in one batch. The kernel echoes each of them before anybody can
// read an echo (ENOBUFS when they do not fit), and looks for each rule that it deletes by handle in the whole chain.
func TestManyRules(t *testing.T) {
	needsLargeBuffers(t)
	const n = 20_000
	h, e := pod(t, lab.ForTest(t), "pod")
	chain := func(first func(i int) int) Ruleset {
		c := &Chain{Name: "prerouting", Hook: HookPrerouting}
		for i := range n {
			mark := expr.Mark().Range(expr.Is, sets.NumberRange{From: uint32(first(i)), To: uint32(first(i))})
			statements := append(slices.Repeat([]expr.Statement{mark}, 5), expr.Counter()) // their echoes need a larger buffer
			c.Rules = append(c.Rules, Rule{Statements: statements, Comment: strings.Repeat("c", 100)})
		}
		return NewRuleset(nil, []*Chain{c})
	}
	for _, rs := range []Ruleset{
		chain(func(i int) int { return i }),
		chain(func(i int) int { return i + i%2*n }), // every other rule is another
		chain(func(i int) int { return n - i }),
	} {
		apply(t, e, rs)
		if got := strings.Count(listTable(t, h), "counter"); got != n {
			t.Errorf("%d rules, want %d", got, n)
		}
	}
	if s := e.Stats(); s.ReadBacks != 1 || s.Refused != 0 {
		t.Errorf("%d looks, %d refused", s.ReadBacks, s.Refused)
	}
}

// TestHighDescriptor: a descriptor over 1024 is no trouble, as it would be with select(2).
func TestHighDescriptor(t *testing.T) {
	h, err := lab.ForTest(t).Host("pod")
	if err != nil {
		t.Fatal(err)
	}
	for range 1100 {
		f, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	apply(t, openEngine(t, h), isolated(sets.Addrs{}, 80))
}

func TestOpenRefuses(t *testing.T) {
	if _, err := Open("default/pod", "/proc/thread-self/ns/net", Options{}); !errors.Is(err, nfnl.ErrOwnNamespace) {
		t.Errorf("own namespace: %v", err)
	}
	if _, err := Open("default/pod", "/does/not/exist", Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such file: %v", err)
	}
	if _, err := Open("default/pod", "/dev/null", Options{}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("not a namespace: %v", err)
	}
}
