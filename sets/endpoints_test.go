package sets

import (
	"cmp"
	"net/netip"
	"slices"
	"testing"
)

func endpoint(a string, proto uint8, port uint16) Endpoint {
	return Endpoint{netip.MustParseAddr(a), proto, port}
}

func TestEndpoints(t *testing.T) {
	web4, web6 := endpoint("10.0.0.1", tcp, 80), endpoint("fe80::1", tcp, 80)
	s := NewEndpoints(web6, web4, endpoint("::ffff:10.0.0.1", tcp, 80), endpoint("fe80::1%net1", tcp, 80), Endpoint{Port: 80})
	wantDiff(t, "v4", []Endpoint{web4}, slices.Collect(s.All(V4)))
	wantDiff(t, "v6", []Endpoint{web6}, slices.Collect(s.All(V6)))
	wantDiff(t, "no family", []Endpoint(nil), slices.Collect(s.All(0)))
	for _, same := range []Endpoints{s.Insert(web4), s.Insert(Endpoint{}), s.Remove(Endpoint{}), s.Remove(endpoint("10.0.0.1", udp, 80))} {
		if same != s {
			t.Error("not the receiver, though nothing changed")
		}
	}
	if s.Contains(Endpoint{}) || s.Contains(endpoint("10.0.0.1", tcp, 81)) || !s.Contains(endpoint("::ffff:10.0.0.1", tcp, 80)) {
		t.Error("contains the wrong endpoints")
	}
	if !s.Remove(web4).Remove(web6).IsEmpty() || s.IsEmpty() {
		t.Error("the wrong set is empty")
	}
}

func TestEndpointsOrder(t *testing.T) {
	want := []Endpoint{
		endpoint("0.0.0.0", 0, 0), endpoint("10.0.0.1", tcp, 443), endpoint("10.0.0.1", udp, 53),
		endpoint("10.0.0.1", 255, 65535), endpoint("10.0.0.2", tcp, 80), endpoint(last4, 255, 65535),
	}
	in := slices.Clone(want)
	slices.Reverse(in)
	wantDiff(t, "order", want, slices.Collect(NewEndpoints(in...).All(V4)))
}

// endpointUniverse holds the endpoints of FuzzEndpoints: 256, half of them of
// each family, close together at both ends of the space.
func endpointUniverse() []Endpoint {
	var out []Endpoint
	for _, a := range []string{
		"0.0.0.0", "0.0.0.1", "10.0.0.1", last4,
		"::", "::1", "2001:db8::1", last6,
	} {
		for _, proto := range []uint8{0, tcp, udp, 255} {
			for _, port := range []uint16{0, 1, 80, 443, 32768, 50000, 65534, 65535} {
				out = append(out, endpoint(a, proto, port))
			}
		}
	}
	return out
}

// FuzzEndpoints reads its input as operations on a growing list of versions, and
// compares every version with a map.
func FuzzEndpoints(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 255, 1, 0, 1, 7})
	f.Add([]byte{0, 130, 0, 131, 0, 5, 1, 130, 0, 130, 1, 9, 0, 9})
	universe := endpointUniverse()
	type version struct {
		set  Endpoints
		want [256]bool
	}
	list := func(v *version, f Family) []Endpoint {
		var out []Endpoint
		for i, e := range universe {
			if v.want[i] && FamilyOf(e.Addr) == f {
				out = append(out, e)
			}
		}
		slices.SortFunc(out, func(a, b Endpoint) int {
			return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port))
		})
		return out
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		versions := []version{{}}
		for n := 0; len(data) >= 2 && n < 2*maxOps; n++ {
			cur := versions[len(versions)-1]
			next, i := cur, int(data[1])
			next.want[i] = data[0]&1 == 0
			if next.want[i] {
				next.set = cur.set.Insert(universe[i])
			} else {
				next.set = cur.set.Remove(universe[i])
			}
			if same := cur.want == next.want; same != (cur.set == next.set) || same != cur.set.Equal(next.set) {
				t.Fatalf("content unchanged is %v, == %v, Equal %v", same, cur.set == next.set, cur.set.Equal(next.set))
			}
			other := versions[int(data[0]>>1)%len(versions)]
			for _, f := range Families {
				wantDiff(t, "delta", naiveDelta(list(&other, f), list(&next, f)), DiffEndpoints(other.set, next.set, f))
			}
			versions = append(versions, next)
			data = data[2:]
		}
		for _, v := range versions {
			var all []Endpoint
			for _, f := range Families {
				want := list(&v, f)
				wantDiff(t, f.String(), want, slices.Collect(v.set.All(f)))
				if v.set.Len(f) != len(want) {
					t.Fatalf("%v: Len is %d, want %d", f, v.set.Len(f), len(want))
				}
				checkTree(t, v.set.root(f))
				all = append(all, want...)
			}
			slices.Reverse(all)
			if !NewEndpoints(all...).Equal(v.set) || v.set.IsEmpty() != (len(all) == 0) {
				t.Fatal("the same endpoints in another order are not equal")
			}
			for i, e := range universe {
				if v.set.Contains(e) != v.want[i] {
					t.Fatalf("Contains(%v) is not %v", e, v.want[i])
				}
			}
		}
	})
}

// TestSpliceEndpoints compares Splice with a naive splice, at endpoints in the sets and outside.
func TestSpliceEndpoints(t *testing.T) {
	var all []Endpoint
	for _, addr := range []string{"10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"} {
		for port := range uint16(4) {
			all = append(all, Endpoint{netip.MustParseAddr(addr), 6, port})
		}
	}
	a, b := NewEndpoints(all[0], all[2], all[5], all[9], all[14]), NewEndpoints(all[1], all[2], all[7], all[8], all[15])
	for i, at := range all {
		f, _ := at.key()
		var want []Endpoint
		for j, e := range all {
			from := a
			if j >= i && FamilyOf(e.Addr) == f {
				from = b
			}
			if from.Contains(e) {
				want = append(want, e)
			}
		}
		if got := a.Splice(b, at); !got.Equal(NewEndpoints(want...)) {
			t.Errorf("at %v: not %v", at, want)
		}
	}
}

func TestDiffEndpoints(t *testing.T) {
	a, b, c, six := endpoint("10.0.0.1", tcp, 80), endpoint("10.0.0.1", udp, 80), endpoint("10.0.0.2", tcp, 80), endpoint("fd00::1", tcp, 80)
	got := DiffEndpoints(NewEndpoints(a, b, six), NewEndpoints(b, c), V4)
	wantDiff(t, "v4", Delta[Endpoint]{Del: []Endpoint{a}, Add: []Endpoint{c}}, got)
}
