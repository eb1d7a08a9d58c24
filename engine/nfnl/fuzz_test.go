package nfnl

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// errorMessage is NLMSG_ERROR with an extended acknowledgement, as the kernel writes it.
func errorMessage(errno unix.Errno, flags uint16) []byte {
	var b Buffer
	b.Begin(unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS|flags, 0, 0)
	b.buf = b.buf[:messageHeader] // NLMSG_ERROR has no struct nfgenmsg
	b.Raw(binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno))))
	b.Raw(make([]byte, messageHeader))
	b.Text(unix.NLMSGERR_ATTR_MSG, "no")
	b.Uint32(unix.NLMSGERR_ATTR_OFFS, 20)
	b.End()
	return b.Bytes()
}

// FuzzAnswer gives bytes that may look like answers of the kernel to the parser. No input may panic, and silence is never
// success.
func FuzzAnswer(f *testing.F) {
	var m Messages
	m.BeginBatch(1)
	m.BeginNFT(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, unix.NFPROTO_INET, Label{Op: "NEWTABLE", Object: "t"})
	m.Text(unix.NFTA_TABLE_NAME, "t")
	m.End()
	m.BeginNFT(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, unix.NFPROTO_INET, Label{Op: "NEWSET", Object: "s", Optional: true})
	m.Text(unix.NFTA_SET_TABLE, "t")
	m.Text(unix.NFTA_SET_NAME, "s")
	m.Data(unix.NFTA_SET_USERDATA, []byte{0, 2, 'c', 0})
	m.End()
	m.EndBatch()
	f.Add(m.Bytes())
	f.Add(errorMessage(unix.EEXIST, unix.NLM_F_CAPPED))
	f.Add(errorMessage(unix.EEXIST, 0))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		visited := 0
		visit := func(a Answer) error {
			visited += len(a.Body)
			attrs, err := ParseAttrs(a.Content())
			if err != nil {
				return nil
			}
			for typ := range attrs {
				attrs.Text(typ)
				attrs.Uint16(typ)
				attrs.Uint32(typ)
				attrs.Uint64(typ)
				UserData(attrs[typ], 0)
			}
			return nil
		}
		a := answers{to: &m}
		if _, err := a.parse(datagram, visit); err == nil && a.err() == nil && !a.acked {
			t.Error("silence is taken for success")
		}
		if visited > len(datagram) {
			t.Errorf("%d bytes of answers in %d", visited, len(datagram))
		}
		_ = EachMessage(datagram, func(reply Answer) error {
			return a.readDone(reply)
		})
	})
}
