package engine

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/nft"
)

// lines repeats an nft line with a number in it.
func lines(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format+"\n", i)
	}
	return b.String()
}

// otherTable is a table of the pod's root, with so many chains, each with a rule.
func otherTable(chains int) string {
	return "table inet other {\n" + lines(chains, "chain c%d { counter; }") + "}\n"
}

// leastOf is the shortest time of a few: other programs on the machine do not make it shorter.
func leastOf(t *testing.T, f func()) time.Duration {
	least := time.Hour
	for range 5 {
		start := time.Now()
		f()
		least = min(least, time.Since(start))
	}
	return least
}

// TestOtherTablesCostNothing: a look at the table takes the same time however many chains root in the pod has in others.
func TestOtherTablesCostNothing(t *testing.T) {
	needsLargeBuffers(t)
	h, e := pod(t, lab.ForTest(t), "pod")
	nft.MustRun(t, h, otherTable(50_000), "--file", "-")
	apply(t, e, isolated(parseAddrs("10.0.0.1"), 80))
	took := leastOf(t, func() {
		e.have.generation = nfnl.AnyGeneration
		finds(t, "another table", e, AsApplied)
		if _, err := e.Counts(); err != nil {
			t.Fatal(err)
		}
	})
	if took > 20*time.Millisecond { // a dump of all chains took 120 ms here, this takes 0.3 ms
		t.Errorf("a check and a look at the counters took %v", took)
	}
}

// TestFilledTable: a table that root in the pod has filled is replaced, and is not read to its end: its number of objects
// says enough, or the dump is given up with its socket.
func TestFilledTable(t *testing.T) {
	needsLargeBuffers(t)
	const many = 50_000
	l := lab.ForTest(t)
	want := isolated(parseAddrs("10.0.0.1"), 80)
	for name, tt := range map[string]struct {
		content string
		givenUp bool
	}{
		"chains":         {lines(many, "chain c%d { }"), false},
		"chains, rules":  {lines(many, "chain c%d { counter; }"), false},
		"counters":       {lines(many, "counter c%d { }"), false},
		"rules":          {"chain ingress-net1 {\n" + lines(many, "meta mark %d counter") + "}", true},
		"elements":       {"set peers-v4 { type ipv4_addr; flags interval; comment \"peers\"; elements = { " + scatteredText(many) + " }; }", true},
		"other elements": {"set other { type ipv4_addr; flags interval; elements = { " + scatteredText(many) + " }; }", true},
	} {
		t.Run(name, func(t *testing.T) {
			h, e := pod(t, l, "pod")
			apply(t, e, want)
			nft.MustRun(t, h, "table inet multi_networkpolicy {\n"+tt.content+"\n}\n", "--file", "-")
			files, socket := openFiles(t), e.transport.Port()
			x, done := e.exchange()
			defer done()
			if found, err := x.readBack(e.transport, want); err != nil || !found.foreign {
				t.Errorf("%+v, %v", found, err)
			}
			if givenUp := e.transport.Port() != socket; givenUp != tt.givenUp {
				t.Errorf("given up: %v", givenUp)
			}
			if now := openFiles(t); now != files {
				t.Errorf("%d open files, and before %d", now, files)
			}
			if counts, err := e.Counts(); len(counts) > 2*moreRules {
				t.Errorf("%d counters, %v", len(counts), err)
			}
			finds(t, "filled", e, Repaired)
			if diff := cmp.Diff(normal(rendered(t, want)), normal(listTable(t, h))); diff != "" {
				t.Errorf("(-rendered +nft):\n%s", diff)
			}
		})
	}
}

// scatteredText is n addresses, none a neighbor of another.
func scatteredText(n int) string {
	var texts []string
	for r := range scattered(n).Ranges(4) {
		texts = append(texts, r.String())
	}
	return strings.Join(texts, ", ")
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// BenchmarkCheck is a look at the table and at its counters, beside another table that has many chains.
func BenchmarkCheck(b *testing.B) {
	for _, n := range []int{0, 100_000} {
		h, e := pod(b, lab.ForTest(b), "pod")
		nft.MustRun(b, h, otherTable(n), "--file", "-")
		apply(b, e, isolated(parseAddrs("10.0.0.1"), 80))
		b.Run(fmt.Sprintf("table/foreign=%d", n), func(b *testing.B) {
			for b.Loop() {
				e.have.generation = nfnl.AnyGeneration
				if found, err := e.Check(b.Context()); found != AsApplied || err != nil {
					b.Fatal(found, err)
				}
			}
		})
		b.Run(fmt.Sprintf("counters/foreign=%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := e.Counts(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestReplacedTableIsSeeded: the connections of a pod are known as soon as its rules are in force, also where they replace a table
// that somebody else made.
func TestReplacedTableIsSeeded(t *testing.T) {
	h, e := pod(t, lab.ForTest(t), "pod")
	nft.MustRun(t, h, "table inet "+TableName+" {\n chain c { }\n}\n", "--file", "-")
	apply(t, e, isolated(parseAddrs("10.0.0.1"), 80))
	finds(t, "after the replacement", e, AsApplied)
}
