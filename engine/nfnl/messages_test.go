package nfnl

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// tables writes messages for new tables, the first with the number from.
func tables(m *Messages, from, to int) {
	for i := from; i < to; i++ {
		name := fmt.Sprint("table-", i)
		m.BeginNFT(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, unix.NFPROTO_INET, Label{Op: "NEWTABLE", Object: name})
		m.Text(unix.NFTA_TABLE_NAME, name)
		m.End()
	}
}

// TestAppend: the copy of a list is the same as the list written again, and EndBatch finds the last message of the copy.
func TestAppend(t *testing.T) {
	var written, copied, list Messages
	written.BeginBatch(7)
	tables(&written, 1, 5)
	written.EndBatch()

	copied.BeginBatch(7)
	tables(&copied, 1, 2)
	tables(&list, 2, 5)
	copied.Append(&list)
	copied.Append(&Messages{})
	copied.EndBatch()

	if !bytes.Equal(written.Bytes(), copied.Bytes()) || written.Sequence() != copied.Sequence() {
		t.Errorf("copied up to message %d, written up to message %d:\n%x\n%x", copied.Sequence(), written.Sequence(), copied.Bytes(), written.Bytes())
	}
	if !slices.Equal(written.Labels(), copied.Labels()) || copied.Count() != 6 {
		t.Errorf("labels %v, want %v", copied.Labels(), written.Labels())
	}
}

// TestReset: messages after Reset are the same as in a new list.
func TestReset(t *testing.T) {
	var fresh, used Messages
	tables(&used, 1, 5)
	used.Reset()
	tables(&used, 1, 2)
	tables(&fresh, 1, 2)
	if !bytes.Equal(fresh.Bytes(), used.Bytes()) || used.Count() != 1 || used.Sequence() != 1 {
		t.Errorf("%d messages up to number %d: %x", used.Count(), used.Sequence(), used.Bytes())
	}
}

// TestAttributes: a list of attributes is read as it was written, also a value that is too short or missing.
func TestAttributes(t *testing.T) {
	var b Buffer
	b.Uint8(1, 8)
	b.Uint16(2, 1600)
	b.Uint32(3, 320000)
	b.Uint64(4, 64<<40)
	b.Text(5, "text")
	b.Data(6|unix.NLA_F_NET_BYTEORDER, []byte{1, 2, 3, 4, 5})
	nest := b.Nest(7)
	b.Text(1, "inside")
	if n := b.NestLen(nest); n != 4+12 {
		t.Errorf("the nest has %d bytes", n)
	}
	b.EndNest(nest)
	a, err := ParseAttrs(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if a.Uint16(2) != 1600 || a.Uint32(3) != 320000 || a.Uint64(4) != 64<<40 || a.Text(5) != "text" || len(a[6]) != 5 {
		t.Errorf("attributes: %v", a)
	}
	if inside, err := ParseAttrs(a[7]); err != nil || inside.Text(1) != "inside" {
		t.Errorf("nest: %v, %v", inside, err)
	}
	if a.Uint16(1) != 0 || a.Uint32(2) != 0 || a.Uint64(3) != 0 || a.Uint64(9) != 0 || a.Text(9) != "" {
		t.Error("a value that is too short or missing is not 0")
	}
	if _, err := ParseAttrs(b.Bytes()[:b.Len()-1]); err == nil {
		t.Error("no error for a list that is cut off")
	}
}
