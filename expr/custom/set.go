package custom

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// addrSet makes the set of a list of addresses. The content is canonical: lists with the same addresses give the same
// set.
func addrSet(f sets.Family, a sets.Addrs) Set {
	content := []string{f.String()}
	for r := range a.Ranges(f) {
		content = append(content, r.From.String()+"-"+r.To.String())
	}
	return Set{Name: setName(content), Family: f, Addrs: a}
}

// numberSet makes the set of a list of numbers of a type, like addrSet. The type is a part of the content, since sets
// of different types have different keys.
func numberSet(d expr.Datatype, n sets.Numbers) Set {
	content := []string{d.String()}
	for r := range n.Ranges() {
		content = append(content, fmt.Sprintf("%d-%d", r.From, r.To))
	}
	return Set{Name: setName(content), Type: d, Numbers: n}
}

// setName names a set by a digest of its content, such as custom-3f0c2a6d9b1e8457. No string of the content has a
// space, so the digest is unambiguous.
func setName(content []string) string {
	sum := sha256.Sum256([]byte(strings.Join(content, " ")))
	return "custom-" + hex.EncodeToString(sum[:8])
}

// Lookup finds a set of the rules by name. It is an expr.Lookup, for Evaluate.
func (r Rules) Lookup(name string) (size int, contains func(key []byte) bool) {
	for _, s := range r.Sets {
		switch {
		case s.Name != name:
		case s.Family == 0:
			return s.Type.Len(), func(key []byte) bool { return s.Numbers.Contains(number(key)) }
		case s.Family == sets.V4:
			return 4, func(key []byte) bool { return s.Addrs.Contains(netip.AddrFrom4([4]byte(key))) }
		default:
			return 16, func(key []byte) bool { return s.Addrs.Contains(netip.AddrFrom16([16]byte(key))) }
		}
	}
	// A size of 0 means that there is no such set.
	return 0, nil
}

// number reads a number of at most 4 bytes in network byte order.
func number(key []byte) uint32 {
	var b [4]byte
	copy(b[4-len(key):], key)
	return binary.BigEndian.Uint32(b[:])
}
