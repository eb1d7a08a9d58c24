package sets

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// scattered returns n single addresses of family f, in a random order. No two of
// them are neighbors.
func scattered(n int, f Family) []AddrRange {
	rnd := rand.New(rand.NewPCG(1, uint64(n)))
	out := make([]AddrRange, n)
	for i := range out {
		u := uint128{lo: 10<<24 + 2*uint64(i)}
		if f == V6 {
			u = uint128{0x20010db8<<32 + uint64(i), rnd.Uint64()}
		}
		out[i] = at(u).addrRange(f)
	}
	rnd.Shuffle(n, func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// With this many elements, some priorities are equal, so ties are tested too.
func TestShapeFollowsFromContent(t *testing.T) {
	n := 100_000
	if testing.Short() {
		n = 10_000
	}
	for _, f := range Families {
		rs := scattered(n, f)
		bulk, single := NewAddrs(rs...), Addrs{}
		for _, r := range rs {
			single = single.Insert(r)
		}
		checkTree(t, single.root(f))
		if !bulk.Equal(single) || !DiffAddrs(bulk, single, f).IsEmpty() {
			t.Errorf("%v: built at once and one by one are not equal", f)
		}
		extra := addrs(t, "172.16.0.0/12 fd00::/8")
		again := bulk.Union(extra).Union(NewAddrs(rs[:n/100]...)).Difference(extra)
		if !again.Equal(bulk) {
			t.Errorf("%v: there and back again is not equal", f)
		}
		if d := depth(bulk.root(f)); d > 80 {
			t.Errorf("%v: %d elements are %d deep", f, n, d)
		}
	}
}

// If two priorities are equal, the keys decide, regardless of the insertion order.
func TestShapeWhenPrioritiesAreEqual(t *testing.T) {
	const n = 20
	var want *node[struct{}]
	for try := range 50 {
		var got *node[struct{}]
		for _, i := range rand.New(rand.NewPCG(2, uint64(try))).Perm(n) {
			got = got.place(key{sub: uint32(i)}, struct{}{}, 7)
		}
		gone := key{sub: uint32(try % n)}
		got = got.cut(gone, gone).place(gone, struct{}{}, 7)
		if try == 0 {
			want = got
		}
		if !got.equal(want) || got.count() != n {
			t.Fatalf("%d elements in another order are not equal", got.count())
		}
		diff(got, want, nil, nil, func(a, b *node[struct{}]) { t.Fatalf("difference: %v, %v", a, b) })
	}
}

func depth[V comparable](n *node[V]) int {
	if n == nil {
		return 0
	}
	return 1 + max(depth(n.left), depth(n.right))
}

// A version derived from another shares all but a few nodes with it.
func TestVersionsShare(t *testing.T) {
	s := NewAddrs(scattered(10_000, V4)...)
	old := map[*node[uint128]]bool{}
	s.v4.each(func(n *node[uint128]) bool {
		old[n] = true
		return true
	})
	for _, next := range []Addrs{
		s.Insert(Single(netip.MustParseAddr("192.0.2.1"))),
		s.Remove(Single(netip.MustParseAddr("10.0.0.16"))),
		s.Insert(parseRange(t, "10.0.0.16-10.0.0.17")),
		s.Union(addrs(t, "192.0.2.1")),
		s.Difference(addrs(t, "10.0.0.16")),
	} {
		fresh := 0
		next.v4.each(func(n *node[uint128]) bool {
			if !old[n] {
				fresh++
			}
			return true
		})
		if fresh == 0 || fresh > 150 {
			t.Errorf("%d nodes of %d are new", fresh, s.Len(V4))
		}
	}
}

// Shared nodes get values that panic when compared, so the test fails if diff or
// equal look at them.
func TestDiffPassesOverWhatIsShared(t *testing.T) {
	var b builder[any]
	for i := range 1_000 {
		b.add(key{sub: uint32(2 * i)}, 0)
	}
	have := b.tree()
	old := map[*node[any]]bool{}
	have.each(func(n *node[any]) bool {
		old[n] = true
		return true
	})
	gone, added, changed := key{sub: 500}, key{sub: 501}, key{sub: 1_600}
	want := have.cut(gone, gone).put(added, 0).put(changed, 1)
	want.each(func(n *node[any]) bool {
		if old[n] {
			n.val = []int(nil)
		}
		return true
	})
	var got []key
	diff(have, want, nil, nil, func(a, b *node[any]) {
		switch {
		case a != nil:
			got = append(got, a.key)
		case b != nil:
			got = append(got, b.key)
		}
	})
	if !slices.Equal(got, []key{gone, added, changed}) {
		t.Errorf("differs at %v", got)
	}
	if root := *want; !want.equal(&root) || have.equal(want) {
		t.Error("equal to the wrong tree")
	}
}

// Two large sets that share no nodes are merged (mergeUnion, mergeDifference).
func TestLargeUnionAndDifference(t *testing.T) {
	rs := scattered(4_000, V6)
	a, b := NewAddrs(rs[:3_000]...), NewAddrs(rs[1_000:]...)
	if !a.Union(b).Equal(NewAddrs(rs...)) {
		t.Error("union")
	}
	if !a.Difference(b).Equal(NewAddrs(rs[:1_000]...)) {
		t.Error("difference")
	}
	if c := NewAddrs(rs[:2_000]...); a.Union(c) != a || a.Difference(NewAddrs(rs[3_000:]...)) != a {
		t.Error("not the receiver, though nothing changed")
	}
}

func TestIterationDoesNotAllocatePerElement(t *testing.T) {
	s := NewAddrs(scattered(1_000, V6)...)
	allocs := testing.AllocsPerRun(10, func() {
		for range s.Ranges(V6) {
		}
	})
	if allocs > 5 {
		t.Errorf("%v allocations", allocs)
	}
}
