package engine

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/nft"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// TestRestart: a new Engine finds the table of an earlier Engine and sends nothing where the table is right; where it is
// not, it leads there.
func TestRestart(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	l := lab.ForTest(t)
	for step := range 15 {
		h, e := pod(t, l, "pod")
		first, second := randomRuleset(r), randomRuleset(r)
		apply(t, e, first)
		before := lab.Generation(t, h)
		apply(t, openEngine(t, h), first)
		if after := lab.Generation(t, h); after != before {
			t.Fatalf("step %d: a restart sent %d batches\n%s", step, after-before, listTable(t, h))
		}
		apply(t, openEngine(t, h), second)
		if diff := cmp.Diff(normal(rendered(t, second)), normal(listTable(t, h))); diff != "" {
			t.Fatalf("step %d (-rendered +nft):\n%s", step, diff)
		}
	}
}

// TestRestartWhileServed: a new Engine goes on with the corrections for UDP servers that an earlier Engine began.
func TestRestartWhileServed(t *testing.T) {
	h, e := pod(t, lab.ForTest(t), "pod")
	want := isolated(parseAddrs("10.0.0.1"), 80)
	want = NewRuleset(append(slices.Clone(want.Sets), &Set{Name: ServedSet, Elements: Served{}}), want.Chains)
	apply(t, e, want)
	var ports []uint16
	for port := range uint16(5000) { // more than a message holds
		ports = append(ports, 2*port)
	}
	x, done := e.exchange()
	if err := e.addServed(x, ports); err != nil {
		t.Fatal(err)
	}
	done()
	next := openEngine(t, h)
	apply(t, next, want)
	if !slices.Equal(next.seeding.served, ports) || next.seeding.correction.IsZero() {
		t.Errorf("%d ports, the next correction at %s", len(next.seeding.served), next.seeding.correction)
	}
}

// TestRestartOfOwner: an Engine that takes the table over changes it in the same batch to whatever is wanted then.
func TestRestartOfOwner(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	h, err := lab.ForTest(t).Host("pod")
	if err != nil {
		t.Fatal(err)
	}
	var before Ruleset
	for step := range 40 {
		e, want := own(t, h), randomRuleset(r)
		apply(t, e, want)
		if diff := cmp.Diff(normal(rendered(t, want)), normal(nft.WithoutOwner(listTable(t, h)))); diff != "" {
			t.Fatalf("step %d (-rendered +nft):\n%s", step, diff)
		}
		most := 3 + 2*len(moves(before, want)) // the first time: sets, chains, base chains; each time addresses move: sets, the rest
		if s := e.Stats(); s.Batches > uint64(most) {
			t.Errorf("step %d: %d batches", step, s.Batches)
		}
		before = want
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRestartRepairs: what others changed in the table meanwhile is gone after the first Apply, and what
// they left alone is not made anew.
func TestRestartRepairs(t *testing.T) {
	want := isolated(parseAddrs("10.0.0.1", "10.0.0.8/29", "fd00::/8"), 80)
	l := lab.ForTest(t)
	for name, change := range map[string]string{
		"an accept rule first":           "insert rule inet multi_networkpolicy ingress-net1 accept",
		"a rule twice":                   "add rule inet multi_networkpolicy ingress-net1 counter drop",
		"another comment":                "add rule inet multi_networkpolicy ingress-net1 counter drop comment \"x\"",
		"an empty chain":                 "flush chain inet multi_networkpolicy ingress-net1",
		"an address more":                "add element inet multi_networkpolicy peers-v4 { 10.7.7.7 }",
		"an address less":                "delete element inet multi_networkpolicy peers-v4 { 10.0.0.1 }",
		"a neighbor, not merged":         "add element inet multi_networkpolicy peers-v4 { 10.0.0.2 }",
		"an empty set":                   "flush set inet multi_networkpolicy peers-v6",
		"a port more":                    "add element inet multi_networkpolicy ports-80 { 81 . tcp }",
		"a chain more":                   "add chain inet multi_networkpolicy c { type filter hook input priority -1; policy accept; }",
		"a regular chain more":           "add chain inet multi_networkpolicy c\nadd rule inet multi_networkpolicy c accept",
		"an anonymous chain":             "insert rule inet multi_networkpolicy ingress-net1 jump { accept; }",
		"an empty chain in force":        "add chain inet multi_networkpolicy c\ninsert rule inet multi_networkpolicy prerouting jump c",
		"an empty chain, unused":         "add chain inet multi_networkpolicy c",
		"a set more":                     "add set inet multi_networkpolicy s { type ipv4_addr; flags interval; }",
		"a set of another kind":          "add set inet multi_networkpolicy s { type ipv4_addr; flags timeout; }",
		"a map":                          "add map inet multi_networkpolicy m { type ipv4_addr : verdict; }",
		"a counter object":               "add counter inet multi_networkpolicy c",
		"an expression not ours":         "add rule inet multi_networkpolicy ingress-net1 limit rate 1/second accept",
		"a dormant table":                "add table inet multi_networkpolicy { flags dormant; }",
		"another policy of a base chain": "add chain inet multi_networkpolicy prerouting { policy drop; }",
		"no table":                       "delete table inet multi_networkpolicy",
	} {
		t.Run(name, func(t *testing.T) {
			h, e := pod(t, l, "pod")
			apply(t, e, want)
			nft.MustRun(t, h, change, "--file", "-")
			before := lab.Generation(t, h)
			apply(t, openEngine(t, h), want)
			most := uint32(1)
			if name == "no table" {
				most = 3 // sets, chains, base chains
			}
			if sent := lab.Generation(t, h) - before; sent != most {
				t.Errorf("%d batches sent, want %d", sent, most)
			}
			if diff := cmp.Diff(normal(rendered(t, want)), normal(listTable(t, h))); diff != "" {
				t.Errorf("(-rendered +nft):\n%s", diff)
			}
		})
	}
}

// TestReadBackWhileKernelResizes reads hash sets a moment after they have grown or shrunk, when the kernel resizes them: such a
// dump repeats some elements, and lacks others.
func TestReadBackWhileKernelResizes(t *testing.T) {
	l := lab.ForTest(t)
	_, e := pod(t, l, "pod")
	rulesetOf := func(n int) Ruleset {
		addrs, endpoints := scattered(n), []sets.Endpoint(nil)
		for a := range addrs.Hosts(sets.V4) {
			endpoints = append(endpoints, sets.Endpoint{Addr: a, Proto: 6, Port: 80})
		}
		return NewRuleset([]*Set{
			{Name: "hosts", Elements: NewHosts(sets.V4, addrs)},
			{Name: "endpoints", Elements: Endpoints{sets.V4, sets.NewEndpoints(endpoints...)}},
		}, nil)
	}
	x, done := e.exchange()
	defer done()
	for i := range 300 {
		want := rulesetOf([]int{10, 3000}[i%2])
		apply(t, e, want)
		found, err := x.readBack(e.transport, want)
		if err != nil {
			t.Fatal(err)
		}
		if p := makePlan(found, want, 0); !p.isEmpty() {
			t.Fatalf("round %d: foreign %v, %d elements differ", i, found.foreign, len(p.elements))
		}
	}
}

// TestRepeatedElements: elements of a hash set that the kernel dumps twice are one element.
func TestRepeatedElements(t *testing.T) {
	for _, content := range []Elements{
		NewHosts(sets.V4, scattered(9)),
		NewHosts(sets.V6, parseAddrs("fd00::1", "fd00::2")),
		Endpoints{sets.V4, sets.NewEndpoints(sets.Endpoint{Addr: oneMore.From, Proto: 6, Port: 80}, sets.Endpoint{Addr: oneMore.From, Proto: 17, Port: 80})},
		Ports{sets.NewPorts(sets.PortRange{Proto: 6, From: 80, To: 81})},
	} {
		var b batch
		b.fillSet(&Set{Name: "s", Elements: content})
		var list []element
		for range 2 {
			list = append(list, elementsIn(t, b.Bytes())...)
		}
		got := elementsOf(content, list)
		if got == nil || !slices.Equal(elementTexts(got), elementTexts(content)) || elementCount(got) != elementCount(content) {
			t.Errorf("%v of %v twice", got, elementTexts(content))
		}
	}
}

// elementsIn returns the elements in messages.
func elementsIn(t *testing.T, messages []byte) (list []element) {
	err := nfnl.EachMessage(messages, func(m nfnl.Answer) error {
		a, err := nfnl.ParseAttrs(m.Content())
		if err != nil {
			return err
		}
		return nfnl.EachAttr(a[unix.NFTA_SET_ELEM_LIST_ELEMENTS], func(_ uint16, b []byte) {
			e, err := parseElement(b)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, e)
		})
	})
	if err != nil || len(list) == 0 {
		t.Fatalf("%d elements, %v", len(list), err)
	}
	return list
}
