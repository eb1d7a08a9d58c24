package sets

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The naive model with which the fuzz tests compare the sets.
//
// The address space of a family is cut into cells. Each address in the windows
// at the start, the middle and the end of the space is a cell. Each of the two
// gaps between the windows is a cell too. A set is a bitmap of cells if all its
// ranges start and end in windows.
const (
	window    = 256
	lineCells = 3*window + 2
	gapOne    = window
	gapTwo    = 2*window + 1
)

type bitmap [lineCells]bool

// cells is the address space of a family, in ascending order.
type cells [lineCells]span

// newCells lays out a space whose middle window straddles middle and whose last
// address is last.
func newCells(middle, last uint128) *cells {
	var c cells
	mid, end := minus(middle, window/2), minus(last, window-1)
	for i := range window {
		c[i] = at(plus(uint128{}, i))
		c[gapOne+1+i] = at(plus(mid, i))
		c[gapTwo+1+i] = at(plus(end, i))
	}
	c[gapOne] = span{c[gapOne-1].to.next(), c[gapOne+1].from.prev()}
	c[gapTwo] = span{c[gapTwo-1].to.next(), c[gapTwo+1].from.prev()}
	return &c
}

func at(u uint128) span { return span{u, u} }

func plus(u uint128, n int) uint128 {
	for range n {
		u = u.next()
	}
	return u
}

func minus(u uint128, n int) uint128 {
	for range n {
		u = u.prev()
	}
	return u
}

// space holds the cells of both families. The middle of the IPv6 space is the
// place where the low 64 bits of an address overflow into the high bits.
var space = map[Family]*cells{
	V4: newCells(uint128{lo: 1 << 31}, uint128{lo: 1<<32 - 1}),
	V6: newCells(uint128{hi: 1}, maxUint128),
}

// rangeOf returns the addresses of the cells from lo to hi.
func rangeOf(f Family, lo, hi int) AddrRange {
	return span{space[f][lo].from, space[f][hi].to}.addrRange(f)
}

// ranges returns the canonical ranges of a bitmap.
func (b *bitmap) ranges(f Family) []AddrRange {
	var out []AddrRange
	for i := 0; i < lineCells; i++ {
		if !b[i] {
			continue
		}
		lo := i
		for i+1 < lineCells && b[i+1] {
			i++
		}
		out = append(out, rangeOf(f, lo, i))
	}
	return out
}

// model has a bitmap of cells for each family.
type model struct{ v4, v6 bitmap }

func (m *model) of(f Family) *bitmap {
	if f == V4 {
		return &m.v4
	}
	return &m.v6
}

// combine returns the model of op applied cell by cell.
func (m model) combine(n model, op func(a, b bool) bool) model {
	for _, f := range Families {
		for i := range lineCells {
			m.of(f)[i] = op(m.of(f)[i], n.of(f)[i])
		}
	}
	return m
}

// naiveDelta returns the Delta of two ascending lists, in O(n²).
func naiveDelta[T comparable](have, want []T) Delta[T] {
	return Delta[T]{Del: without(have, want), Add: without(want, have)}
}

func without[T comparable](list, drop []T) []T {
	var out []T
	for _, e := range list {
		if !slices.Contains(drop, e) {
			out = append(out, e)
		}
	}
	return out
}

// checkTree fails the test unless t has the invariants of a tree: sorted by key,
// heap-ordered by the right priorities, and with the right sizes.
func checkTree[V comparable](tb testing.TB, t *node[V]) {
	tb.Helper()
	if t == nil {
		return
	}
	if t.prio != priority(t.key) {
		tb.Fatalf("node %v: priority %d, want %d", t.key, t.prio, priority(t.key))
	}
	if got, want := t.count(), 1+t.left.count()+t.right.count(); got != want {
		tb.Fatalf("node %v: size %d, want %d", t.key, got, want)
	}
	for _, child := range []*node[V]{t.left, t.right} {
		if child != nil && over(child.prio, child.key, t) {
			tb.Fatalf("node %v is above %v", t.key, child.key)
		}
		checkTree(tb, child)
	}
	if t.left != nil && t.left.key.compare(t.key) >= 0 || t.right != nil && t.right.key.compare(t.key) <= 0 {
		tb.Fatalf("node %v: children out of order", t.key)
	}
}

// cmpOpts lets cmp look into addresses, and makes nil and empty lists equal.
var cmpOpts = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Transformer("nonNil", func(s []AddrRange) []string { return texts(s) }),
}

func texts[T fmt.Stringer](rs []T) []string {
	out := make([]string, 0, len(rs))
	for _, r := range rs {
		out = append(out, r.String())
	}
	return out
}

func wantDiff(tb testing.TB, what string, want, got any) {
	tb.Helper()
	if reflect.DeepEqual(want, got) { // much faster, which counts in fuzzing
		return
	}
	if d := cmp.Diff(want, got, cmpOpts); d != "" {
		tb.Fatalf("%s (-want +got):\n%s", what, d)
	}
}
