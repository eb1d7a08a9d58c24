package engine

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// FuzzReply gives what looks like the kernel's words to everything that reads them. Nothing may panic, and what is
// read as a set must be a set that can be written.
func FuzzReply(f *testing.F) {
	var b batch
	p := fullPlan(&table{}, isolated(parseAddrs("10.0.0.0/8", "fd00::1"), 80), owned)
	if err := b.encode(&p, 1); err != nil {
		f.Fatal(err)
	}
	f.Add(b.buf)
	// An error with an extended acknowledgement, as the kernel writes it.
	var w nfnl.Buffer
	w.begin(unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS|unix.NLM_F_CAPPED, 0, 0)
	w.buf = append(w.buf, make([]byte, unix.SizeofNlMsghdr)...)
	w.Text(unix.NLMSGERR_ATTR_MSG, "no")
	w.Uint32(unix.NLMSGERR_ATTR_OFFS, 20)
	w.End()
	f.Add(w.buf)
	f.Fuzz(func(t *testing.T, datagram []byte) {
		r := replies{batch: &b, handles: p.handles}
		if _, err := r.parse(datagram); err == nil && r.err() == nil && !r.acked {
			t.Error("no answer is taken for success")
		}
		_ = nfnl.EachMessage(datagram, func(m netlinkMessage) error {
			a, err := nfnl.ParseAttrs(m.body[min(len(m.body), nfgenmsgLen):])
			if err != nil {
				return nil
			}
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
			return nil
		})
	})
}
