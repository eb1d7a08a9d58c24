package nfnl

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Label names a message in errors. The kernel refers to a message only by its sequence number.
type Label struct {
	Op       string // NEWRULE, DELSETELEM, …
	Object   string // the chain, set or table
	Optional bool   // ENOENT is no error: the message asks for an object that may be missing
}

// Messages is a Buffer with a Label for each message. Conn sends all messages with a single system call. Message i
// (from 0) has the sequence number i+1, by which an error finds its label. The zero value is an empty list.
type Messages struct {
	Buffer
	labels []Label
}

// Reset removes all messages and keeps the memory for the next messages.
func (m *Messages) Reset() {
	m.Buffer.Reset()
	// The strings of the labels must not live as long as the list.
	clear(m.labels)
	m.labels = m.labels[:0]
}

// Begin opens a message with a label, see Buffer.Begin.
func (m *Messages) Begin(typ, flags uint16, family byte, resID uint16, l Label) {
	m.labels = append(m.labels, l)
	m.Buffer.Begin(typ, flags, family, resID)
}

// NFTables is the subsystem of nf_tables, in the high byte of the type of a message.
const NFTables = unix.NFNL_SUBSYS_NFTABLES << 8

// BeginNFT opens a message of nf_tables. The type is an NFT_MSG_ number, the family an NFPROTO_ number.
func (m *Messages) BeginNFT(typ, flags uint16, family byte, l Label) {
	m.Begin(NFTables|typ, flags, family, 0, l)
}

// AnyGeneration is a number that no namespace has: the kernel skips it when it counts.
const AnyGeneration = 0

// BatchBegin is the Op of the message that opens a batch. The kernel refuses it if the tables have another generation.
const BatchBegin = "BATCH_BEGIN"

// BeginBatch opens a batch of nf_tables, which the kernel accepts or refuses as a whole (NFNL_MSG_BATCH_BEGIN). Every batch
// raises the generation of the namespace. If the tables have another generation than the caller expects, the kernel refuses
// the batch with ERESTART (NFNL_BATCH_GENID).
func (m *Messages) BeginBatch(generation uint32) {
	m.Begin(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, Label{Op: BatchBegin})
	if generation != AnyGeneration {
		m.Uint32(unix.NFNL_BATCH_GENID, generation)
	}
	m.End()
}

// EndBatch closes a batch (NFNL_MSG_BATCH_END) and makes its last message ask for an acknowledgement. A single acknowledgement
// is enough, because the kernel reports each message that fails.
func (m *Messages) EndBatch() {
	m.OrFlags(unix.NLM_F_ACK)
	m.Begin(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, Label{Op: "BATCH_END"})
	m.End()
}

// Count returns the number of messages. In a batch this includes BATCH_BEGIN and BATCH_END.
func (m *Messages) Count() int { return len(m.labels) }

// Labels returns the labels of all messages, in their order. They are valid until the next change of the list.
func (m *Messages) Labels() []Label { return m.labels }

// Append copies the messages of another list to the end, with the next sequence numbers. A list that was encoded before
// can thus be a part of many batches, such as the same change of a peer group for many pods. o stays as it is.
func (m *Messages) Append(o *Messages) {
	m.labels = append(m.labels, o.labels...)
	at := len(m.buf)
	m.buf = append(m.buf, o.buf...)
	// The kernel answers with the sequence number of a message, so each copied message needs the number of its new
	// place.
	for ; at < len(m.buf); at += int(binary.NativeEndian.Uint32(m.buf[at:])) {
		m.seq++
		binary.NativeEndian.PutUint32(m.buf[at+8:], m.seq)
		m.start = at
	}
}

// label returns the label of the message with the sequence number, or nil.
func (m *Messages) label(seq uint32) *Label {
	if seq == 0 || int(seq) > len(m.labels) {
		return nil
	}
	return &m.labels[seq-1]
}
