package sets

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// parseRange is the inverse of AddrRange.String.
func parseRange(tb testing.TB, s string) AddrRange {
	tb.Helper()
	if strings.Contains(s, "/") {
		return PrefixRange(netip.MustParsePrefix(s))
	}
	if from, to, ok := strings.Cut(s, "-"); ok {
		return AddrRange{netip.MustParseAddr(from), netip.MustParseAddr(to)}
	}
	return Single(netip.MustParseAddr(s))
}

// addrs makes a set of ranges separated by blanks.
func addrs(tb testing.TB, s string) Addrs {
	tb.Helper()
	var rs []AddrRange
	for _, f := range strings.Fields(s) {
		rs = append(rs, parseRange(tb, f))
	}
	return NewAddrs(rs...)
}

// show is the reverse of addrs.
func show(s Addrs) string {
	out := texts(slices.Collect(s.Ranges(V4)))
	return strings.Join(append(out, texts(slices.Collect(s.Ranges(V6)))...), " ")
}

const (
	all4  = "0.0.0.0/0"
	all6  = "::/0"
	last4 = "255.255.255.255"
	last6 = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
)

func TestAddrsOperations(t *testing.T) {
	tests := []struct {
		name              string
		a, b              string
		union, difference string
	}{
		{"both empty", "", "", "", ""},
		{"apart", "10.0.0.1", "10.0.0.3", "10.0.0.1 10.0.0.3", "10.0.0.1"},
		{"neighbours", "10.0.0.0", "10.0.0.1", "10.0.0.0/31", "10.0.0.0"},
		{"neighbours, no prefix", "10.0.0.1", "10.0.0.2", "10.0.0.1-10.0.0.2", "10.0.0.1"},
		{"same", "10.0.0.0/24", "10.0.0.0/24", "10.0.0.0/24", ""},
		{"within", "10.0.0.0/24", "10.0.0.8", "10.0.0.0/24", "10.0.0.0/29 10.0.0.9-10.0.0.255"},
		{"around", "10.0.0.8", "10.0.0.0/24", "10.0.0.0/24", ""},
		{"closes a gap", "10.0.0.1 10.0.0.3", "10.0.0.2", "10.0.0.1-10.0.0.3", "10.0.0.1 10.0.0.3"},
		{"same start, longer", "10.0.0.0/25", "10.0.0.0/24", "10.0.0.0/24", ""},
		{"same end", "10.0.0.0/24", "10.0.0.128/25", "10.0.0.0/24", "10.0.0.0/25"},
		{"over many", "10.0.0.1 10.0.0.3 10.0.0.5 10.0.0.9", "10.0.0.3-10.0.0.8", "10.0.0.1 10.0.0.3-10.0.0.9", "10.0.0.1 10.0.0.9"},
		{"everything", all4, all4, all4, ""},
		{"first", all4, "0.0.0.0", all4, "0.0.0.1-" + last4},
		{"last", all4, last4, all4, "0.0.0.0-255.255.255.254"},
		{"last alone", last4, last4, last4, ""},
		{"up to the last", "255.255.255.254", last4, "255.255.255.254/31", "255.255.255.254"},
		{"halves", "0.0.0.0/1", "128.0.0.0/1", all4, "0.0.0.0/1"},
		{"everything, IPv6", all6, all6, all6, ""},
		{"first, IPv6", all6, "::", all6, "::1-" + last6},
		{"last, IPv6", all6, last6, all6, "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"},
		{"up to the last, IPv6", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", last6, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"},
		{"carry", "::ffff:ffff:ffff:ffff", "0:0:0:1::", "::ffff:ffff:ffff:ffff-0:0:0:1::", "::ffff:ffff:ffff:ffff"},
		{"halves, IPv6", "::/1", "8000::/1", all6, "::/1"},
		{"families stay apart", last4, "::1:0:0 " + all6, last4 + " " + all6, last4},
		{"same numbers", "0.0.0.1", "::1", "0.0.0.1 ::1", "0.0.0.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := addrs(t, tt.a), addrs(t, tt.b)
			wantDiff(t, "union", show(addrs(t, tt.union)), show(a.Union(b)))
			wantDiff(t, "union, the other way", show(addrs(t, tt.union)), show(b.Union(a)))
			wantDiff(t, "difference", show(addrs(t, tt.difference)), show(a.Difference(b)))
			in, out := a, a
			for _, f := range Families {
				for r := range b.Ranges(f) {
					in, out = in.Insert(r), out.Remove(r)
				}
			}
			wantDiff(t, "insert", tt.union, show(in))
			wantDiff(t, "remove", tt.difference, show(out))
			if !in.Equal(a.Union(b)) || !out.Equal(a.Difference(b)) {
				t.Error("range by range and at once are not Equal")
			}
			wantDiff(t, "a, afterwards", show(addrs(t, tt.a)), show(a))
		})
	}
}

func TestAddrsReturnsItselfWhenNothingChanges(t *testing.T) {
	s := addrs(t, "10.0.0.0/24 10.0.2.0/24 10.0.4.0/24 2001:db8::/64")
	whole := addrs(t, all4)
	for name, got := range map[string]Addrs{
		"insert covered":           s.Insert(parseRange(t, "10.0.2.9-10.0.2.11")),
		"insert whole":             s.Insert(parseRange(t, "10.0.2.0/24")),
		"insert invalid":           s.Insert(AddrRange{}),
		"remove what is not there": s.Remove(parseRange(t, "10.0.1.0/24")),
		"remove invalid":           s.Remove(AddrRange{}),
		"union empty":              s.Union(Addrs{}),
		"union itself":             s.Union(s),
		"union equal":              s.Union(addrs(t, show(s))),
		"union covered":            s.Union(addrs(t, "10.0.2.9 10.0.4.9")),
		"difference empty":         s.Difference(Addrs{}),
		"difference apart":         s.Difference(addrs(t, "10.0.1.0/24 10.0.3.0/24 2001:db9::")),
	} {
		if got != s {
			t.Errorf("%s: %s is not the receiver", name, show(got))
		}
	}
	if whole.Union(s) != (Addrs{whole.v4, s.v6}) {
		t.Error("everything with a larger set: not the receiver's tree")
	}
}

func TestAddrsIgnoresInvalidRanges(t *testing.T) {
	one, two := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	six := netip.MustParseAddr("2001:db8::1")
	for name, r := range map[string]AddrRange{
		"zero":              {},
		"no end":            {From: one},
		"no start":          {To: one},
		"backwards":         {two, one},
		"two families":      {one, six},
		"two families back": {six, one},
		"mapped and IPv4":   {netip.MustParseAddr("::ffff:10.0.0.1"), two},
		"zone":              {six.WithZone("net1"), six.WithZone("net1")},
		"half a zone":       {six, six.WithZone("net1")},
		"invalid address":   Single(netip.Addr{}),
		"invalid prefix":    PrefixRange(netip.Prefix{}),
	} {
		t.Run(name, func(t *testing.T) {
			if r.IsValid() || r.String() != "invalid" {
				t.Errorf("%v is valid", r)
			}
			s := addrs(t, "10.0.0.0/8 ::/0")
			if s.Insert(r) != s || s.Remove(r) != s {
				t.Error("changes a set")
			}
			if !NewAddrs(r).IsEmpty() {
				t.Error("adds to a new set")
			}
		})
	}
}

func TestAddrsContains(t *testing.T) {
	s := addrs(t, "10.0.0.0/24 "+last4+" fe80::/10 ::/127")
	for a, want := range map[string]bool{
		"10.0.0.0": true, "10.0.0.255": true, "10.0.1.0": false, "9.255.255.255": false,
		last4: true, "255.255.255.254": false, "0.0.0.0": false,
		"::ffff:10.0.0.1": true, "::ffff:10.0.1.0": false,
		"fe80::1%net1": true, "::1": true, "::2": false, last6: false,
	} {
		if got := s.Contains(netip.MustParseAddr(a)); got != want {
			t.Errorf("Contains(%s) is %v", a, got)
		}
	}
	if s.Contains(netip.Addr{}) || addrs(t, all4+" "+all6).Contains(netip.Addr{}) {
		t.Error("contains an invalid address")
	}
}

func TestAddrsOfNoFamily(t *testing.T) {
	s := addrs(t, all4+" "+all6)
	if s.Len(0) != 0 || len(slices.Collect(s.Ranges(5))) != 0 {
		t.Error("there are ranges of no family")
	}
	if !DiffAddrs(Addrs{}, s, 0).IsEmpty() {
		t.Error("there is a difference in no family")
	}
}

func TestAddrsRangesStops(t *testing.T) {
	s := addrs(t, "10.0.0.1 10.0.0.3 10.0.0.5")
	for i := 1; i <= 3; i++ {
		var got []AddrRange
		for r := range s.Ranges(V4) {
			if got = append(got, r); len(got) == i {
				break
			}
		}
		wantDiff(t, "first ranges", slices.Collect(s.Ranges(V4))[:i], got)
	}
}

// Ranges whose ends are in the IPv4-mapped part of the IPv6 space are ranges of
// IPv6, so the ranges that Ranges yields make the same set again.
func TestAddrsRoundTripsMappedSpace(t *testing.T) {
	cut := AddrRange{netip.MustParseAddr("::ffff:1.2.3.4"), netip.MustParseAddr("::ffff:1.2.3.9")}
	for _, s := range []Addrs{addrs(t, all6).Remove(cut), NewAddrs(cut)} {
		again := NewAddrs(slices.Collect(s.Ranges(V6))...)
		if !again.Equal(s) || again.Len(V4) != 0 || s.IsEmpty() {
			t.Errorf("%s made again is %s", show(s), show(again))
		}
	}
}

func TestDiffAddrs(t *testing.T) {
	tests := []struct{ name, have, want, del, add string }{
		{"none", "10.0.0.1", "10.0.0.1", "", ""},
		{"from nothing", "", "10.0.0.1 10.0.0.3", "", "10.0.0.1 10.0.0.3"},
		{"to nothing", "10.0.0.1 10.0.0.3", "", "10.0.0.1 10.0.0.3", ""},
		{"wider at the end", "10.0.0.1", "10.0.0.1-10.0.0.2", "10.0.0.1", "10.0.0.1-10.0.0.2"},
		{"wider at the start", "10.0.0.2", "10.0.0.1-10.0.0.2", "10.0.0.2", "10.0.0.1-10.0.0.2"},
		{"merged", "10.0.0.1 10.0.0.3 10.0.0.9", "10.0.0.1-10.0.0.3 10.0.0.9", "10.0.0.1 10.0.0.3", "10.0.0.1-10.0.0.3"},
		{"split", "10.0.0.0/24", "10.0.0.0/25 10.0.0.200", "10.0.0.0/24", "10.0.0.0/25 10.0.0.200"},
		{"of the other family", "10.0.0.1", "10.0.0.1 ::1", "", ""},
		{"all replaced", "10.0.0.1 10.0.0.5", "10.0.0.3 10.0.0.7", "10.0.0.1 10.0.0.5", "10.0.0.3 10.0.0.7"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := DiffAddrs(addrs(t, tt.have), addrs(t, tt.want), V4)
			wantDiff(t, "del", tt.del, strings.Join(texts(d.Del), " "))
			wantDiff(t, "add", tt.add, strings.Join(texts(d.Add), " "))
			if d.IsEmpty() != (tt.del+tt.add == "") {
				t.Errorf("IsEmpty is %v", d.IsEmpty())
			}
		})
	}
}

// TestDiffHosts compares the single addresses that DiffHosts finds with those that only one of two sets contains.
func TestDiffHosts(t *testing.T) {
	for _, tt := range []struct{ have, want, del, add string }{
		{"", "", "", ""},
		{"10.0.0.1", "10.0.0.1", "", ""},
		{"10.0.0.1-10.0.0.9", "10.0.0.1-10.0.0.10", "", "10.0.0.10"},
		{"10.0.0.1-10.0.0.9", "10.0.0.1-10.0.0.4 10.0.0.6-10.0.0.9", "10.0.0.5", ""},
		{"10.0.0.1 10.0.0.3", "10.0.0.1-10.0.0.3 fd00::1", "", "10.0.0.2"},
		{"255.255.255.254/31", "0.0.0.0", "255.255.255.254 255.255.255.255", "0.0.0.0"},
	} {
		d := DiffHosts(addrs(t, tt.have), addrs(t, tt.want), V4)
		wantDiff(t, "delete", strings.Join(texts(d.Del), " "), tt.del)
		wantDiff(t, "add", strings.Join(texts(d.Add), " "), tt.add)
	}
}
