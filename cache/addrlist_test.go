package cache

import (
	"net/netip"
	"slices"
	"testing"
)

func TestAddrList(t *testing.T) {
	for _, list := range [][]netip.Addr{
		nil,
		{netip.MustParseAddr("10.0.0.1")},
		{netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("::"), netip.MustParseAddr("2001:db8::1")},
		{netip.MustParseAddr("2001:db8::1")},
	} {
		l := newAddrList(list)
		if got := slices.Collect(l.all()); !slices.Equal(got, list) {
			t.Errorf("%v became %v", list, got)
		}
		if l.len() != len(list) {
			t.Errorf("%v: %d addresses", list, l.len())
		}
		for range l.all() {
			break
		}
	}
}
