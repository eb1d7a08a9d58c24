package sets

import (
	"fmt"
	"net/netip"
	"testing"
)

// perSize runs a benchmark on scattered addresses of a family, at sizes that a
// cluster may have.
func perSize(b *testing.B, run func(b *testing.B, rs []AddrRange)) {
	for _, n := range []int{100, 1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			run(b, scattered(n, V4))
		})
	}
}

func BenchmarkNewAddrs(b *testing.B) {
	perSize(b, func(b *testing.B, rs []AddrRange) {
		for b.Loop() {
			NewAddrs(rs...)
		}
	})
}

// Inserts an address that touches no other, at a different place each time.
func BenchmarkInsert(b *testing.B) {
	perSize(b, func(b *testing.B, rs []AddrRange) {
		room := rs[:len(rs)/8]
		s, i := NewAddrs(rs[len(room):]...), 0
		for b.Loop() {
			s.Insert(room[i%len(room)])
			i++
		}
	})
}

func BenchmarkInsertRemove(b *testing.B) {
	perSize(b, func(b *testing.B, rs []AddrRange) {
		s, i := NewAddrs(rs...), 0
		for b.Loop() {
			r := rs[i%len(rs)]
			s = s.Remove(r).Insert(r)
			i++
		}
	})
}

func BenchmarkDiffAddrsOneInsert(b *testing.B) {
	perSize(b, func(b *testing.B, rs []AddrRange) {
		want := NewAddrs(rs...)
		have := want.Remove(rs[0])
		for b.Loop() {
			if d := DiffAddrs(have, want, V4); len(d.Add) != 1 {
				b.Fatal(d)
			}
		}
	})
}

// The two sets share no nodes, as after a read-back from the kernel.
func BenchmarkDiffAddrsUnshared(b *testing.B) {
	perSize(b, func(b *testing.B, rs []AddrRange) {
		have, want := NewAddrs(rs...), NewAddrs(rs...)
		for b.Loop() {
			if d := DiffAddrs(have, want, V4); !d.IsEmpty() {
				b.Fatal(d)
			}
		}
	})
}

func BenchmarkRanges(b *testing.B) {
	perSize(b, func(b *testing.B, rs []AddrRange) {
		s := NewAddrs(rs...)
		for b.Loop() {
			for range s.Ranges(V4) {
			}
		}
	})
}

func BenchmarkContains(b *testing.B) {
	perSize(b, func(b *testing.B, rs []AddrRange) {
		s, i := NewAddrs(rs...), 0
		for b.Loop() {
			if !s.Contains(rs[i%len(rs)].From) {
				b.Fatal(rs[i%len(rs)])
			}
			i++
		}
	})
}

// Half of each set is in the other.
func BenchmarkUnion(b *testing.B) {
	perSize(b, func(b *testing.B, rs []AddrRange) {
		s, t := NewAddrs(rs[:len(rs)*3/4]...), NewAddrs(rs[len(rs)/4:]...)
		for b.Loop() {
			s.Union(t)
		}
	})
}

func BenchmarkEndpointsInsertRemove(b *testing.B) {
	perSize(b, func(b *testing.B, rs []AddrRange) {
		es := make([]Endpoint, len(rs))
		for i, r := range rs {
			es[i] = Endpoint{r.From, tcp, 80}
		}
		s, i := NewEndpoints(es...), 0
		for b.Loop() {
			e := es[i%len(es)]
			s = s.Remove(e).Insert(e)
			i++
		}
	})
}

func BenchmarkPortsUnion(b *testing.B) {
	p := NewPorts(PortRange{tcp, 80, 80}, PortRange{tcp, 443, 443}, PortRange{udp, 53, 53})
	q := NewPorts(PortRange{tcp, 8080, 8090}, PortRange{udp, 53, 53})
	b.ReportAllocs()
	for b.Loop() {
		p.Union(q)
	}
}

func BenchmarkPrefixRange(b *testing.B) {
	p := netip.MustParsePrefix("2001:db8::/64")
	b.ReportAllocs()
	for b.Loop() {
		PrefixRange(p)
	}
}
