package sets

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// version is a version of a set, with its expected content.
type version struct {
	set  Addrs
	want model
}

const (
	opBytes = 4  // input bytes for each operation
	maxOps  = 64 // operations for each input; the rest is ignored
)

// FuzzAddrs reads its input as operations on a growing list of versions, and
// compares every version with the model.
func FuzzAddrs(f *testing.F) {
	for _, seed := range [][]byte{
		{0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 2, 0},         // neighbours, gap closed last
		{0, 0, 0, 255, 1, 0, 10, 0, 1, 0, 0, 0, 1, 3, 1, 0},      // everything, split, ends taken
		{8, 0, 0, 255, 9, 1, 129, 0, 9, 3, 1, 0, 8, 3, 1, 0},     // the same in IPv6
		{0, 3, 1, 0, 0, 3, 0, 0, 0, 1, 1, 200, 2, 0, 0, 0},       // last address, union
		{0, 0, 0, 9, 0, 0, 20, 9, 6, 0, 5, 1, 6, 0, 0, 2},        // splices that touch, and of all
		{0, 0, 5, 40, 8, 0, 5, 40, 1, 0, 9, 3, 3, 0, 0, 1, 4, 0}, // difference, rebuild
		// A splice whose second set has many ranges.
		{0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0, 8, 0, 0, 0, 10, 0, 1, 0, 4, 7, 6, 0, 1, 5},
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		versions := []version{{}}
		for n := 0; len(data) >= opBytes && n < maxOps; n++ {
			cur := versions[len(versions)-1]
			other := versions[int(data[3])%len(versions)]
			next := apply(t, cur, other, data[:opBytes])
			checkStep(t, cur, next)
			checkDelta(t, other, next)
			versions = append(versions, next)
			data = data[opBytes:]
		}
		for _, v := range versions {
			checkVersion(t, v)
		}
	})
}

// apply performs an operation. op holds the kind and the family, a cell in two
// bytes, and a length in cells (or, for the caller, a version).
func apply(t *testing.T, cur, other version, op []byte) version {
	f := Families[op[0]>>3&1]
	lo := (int(op[1])<<8 | int(op[2])) % lineCells
	n := int(op[3])
	if n > 127 {
		n = (n - 127) * 8
	}
	hi := min(lo+n, lineCells-1)
	line := *cur.want.of(f)
	switch op[0] & 7 {
	case 1, 5:
		fill(&line, lo, hi, false)
		cur.set = cur.set.Remove(rangeOf(f, lo, hi))
	case 2:
		return version{cur.set.Union(other.set), cur.want.combine(other.want, func(a, b bool) bool { return a || b })}
	case 3:
		return version{cur.set.Difference(other.set), cur.want.combine(other.want, func(a, b bool) bool { return a && !b })}
	case 4:
		return version{rebuilt(t, cur, uint64(n)), cur.want}
	case 6:
		copy(line[lo:], other.want.of(f)[lo:])
		if spliced := cur.set.Splice(other.set, rangeOf(f, lo, lo).From); !spliced.Equal(cur.set) { // promises no identity
			cur.set = spliced
		}
	default:
		fill(&line, lo, hi, true)
		cur.set = cur.set.Insert(rangeOf(f, lo, hi))
	}
	*cur.want.of(f) = line
	return cur
}

func fill(b *bitmap, lo, hi int, v bool) {
	for i := lo; i <= hi; i++ {
		b[i] = v
	}
}

// rebuilt builds the set again from its cells in a random order, once by NewAddrs
// and once by Insert; all must be equal. It returns the set itself, so that later
// operations still work on shared trees.
func rebuilt(t *testing.T, v version, seed uint64) Addrs {
	t.Helper()
	var parts []AddrRange
	for _, f := range Families {
		for i, in := range v.want.of(f) {
			if in {
				parts = append(parts, rangeOf(f, i, i))
			}
		}
	}
	rnd := rand.New(rand.NewPCG(seed, 0))
	rnd.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	bulk, single := NewAddrs(parts...), Addrs{}
	for _, r := range parts {
		single = single.Insert(r)
	}
	if !bulk.Equal(v.set) || !single.Equal(v.set) || !v.set.Equal(bulk) {
		t.Fatalf("the same addresses in another order are not equal")
	}
	return v.set
}

// checkStep checks that an operation returned cur itself if it changed nothing,
// and an unequal set if it changed something.
func checkStep(t *testing.T, cur, next version) {
	t.Helper()
	same := cur.want == next.want
	if same != (cur.set == next.set) {
		t.Fatalf("content unchanged is %v, but == is %v", same, cur.set == next.set)
	}
	if same != cur.set.Equal(next.set) {
		t.Fatalf("content unchanged is %v, but Equal is %v", same, cur.set.Equal(next.set))
	}
	checkDelta(t, cur, next)
}

// checkDelta compares the Delta between two versions with the naive Delta.
func checkDelta(t *testing.T, have, want version) {
	t.Helper()
	if have.set.Equal(want.set) != (have.want == want.want) {
		t.Fatalf("Equal is %v", have.set.Equal(want.set))
	}
	for _, f := range Families {
		d := DiffAddrs(have.set, want.set, f)
		wantDiff(t, "delta", naiveDelta(have.want.of(f).ranges(f), want.want.of(f).ranges(f)), d)
		for _, r := range d.Del {
			if slices.Contains(d.Add, r) {
				t.Fatalf("%v both deleted and added", r)
			}
		}
	}
}

// checkVersion compares everything that can be read from a version with the model.
func checkVersion(t *testing.T, v version) {
	t.Helper()
	for _, f := range Families {
		want := v.want.of(f).ranges(f)
		wantDiff(t, f.String(), want, slices.Collect(v.set.Ranges(f)))
		if got := v.set.Len(f); got != len(want) {
			t.Fatalf("%v: Len is %d, want %d", f, got, len(want))
		}
		for i, in := range v.want.of(f) {
			r := rangeOf(f, i, i)
			if v.set.Contains(r.From) != in || v.set.Contains(r.To) != in {
				t.Fatalf("Contains(%v) is not %v", r, in)
			}
		}
		checkTree(t, v.set.root(f))
	}
	if got, want := v.set.IsEmpty(), v.want == (model{}); got != want {
		t.Fatalf("IsEmpty is %v", got)
	}
}
