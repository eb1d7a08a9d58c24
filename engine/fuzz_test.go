package engine

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// FuzzReadBack gives bytes that may look like answers of the kernel to the readers of handles, counters, sets and elements.
// No input may panic, and the content that is read of a set can be written again.
func FuzzReadBack(f *testing.F) {
	var b batch
	p := fullPlan(&table{}, isolated(parseAddrs("10.0.0.0/8", "fd00::1"), 80), owned)
	if err := b.encode(&p, 1); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(_ *testing.T, datagram []byte) {
		_ = nfnl.EachMessage(datagram, func(m nfnl.Answer) error {
			_ = b.echo(m, p.handles)
			a, err := nfnl.ParseAttrs(m.Content())
			if err != nil {
				return nil
			}
			var c RuleCount
			_ = c.read(a[unix.NFTA_RULE_EXPRESSIONS])
			readSet(a)
			return nil
		})
	})
}

// readSet reads the kind and the elements of a set, and writes a set with this content.
func readSet(a nfnl.Attrs) {
	nfnl.UserData(a[unix.NFTA_SET_USERDATA], 0)
	kind, err := kindOf(a)
	if err != nil {
		kind = Addrs{Family: sets.V4}
	}
	var list []element
	_ = nfnl.EachAttr(a[unix.NFTA_SET_ELEM_LIST_ELEMENTS], func(_ uint16, b []byte) {
		if e, err := parseElement(b); err == nil {
			list = append(list, e)
		}
	})
	if elements := elementsOf(kind, list); elements != nil {
		var again batch
		again.fillSet(&Set{Name: "s", Elements: elements})
	}
}
