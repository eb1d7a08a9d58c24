package cache

import (
	"iter"
	"net/netip"
)

// addrList is a list of addresses in few bytes: each address with its length in front, "\x04\x0a\x00\x00\x01" for
// 10.0.0.1. Lists of the same addresses in the same order are equal. The addresses of pods take most of the memory of a
// large cluster, and a slice of netip.Addr would take 24 bytes for each address.
type addrList string

// newAddrList returns the list of addresses without zones.
func newAddrList(addrs []netip.Addr) addrList {
	var text []byte
	for _, a := range addrs {
		bytes := a.AsSlice()
		text = append(append(text, byte(len(bytes))), bytes...)
	}
	return addrList(text)
}

// all iterates over the addresses in order.
func (l addrList) all() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for rest := l; rest != ""; rest = rest[1+rest[0]:] {
			var bytes [16]byte
			n := copy(bytes[:], rest[1:1+rest[0]])
			if a, _ := netip.AddrFromSlice(bytes[:n]); !yield(a) {
				return
			}
		}
	}
}

// len returns the number of addresses.
func (l addrList) len() (n int) {
	for range l.all() {
		n++
	}
	return n
}
