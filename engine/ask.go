package engine

import (
	"encoding/binary"
	"errors"
	"strings"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// ofTable is the attribute with the table's name: NFTA_CHAIN_TABLE, NFTA_RULE_TABLE and NFTA_SET_TABLE are the same number.
const ofTable = unix.NFTA_RULE_TABLE

// dump calls visit with the attributes of each rule or each set of the table. The kernel filters these two dumps by the
// name of the table (nf_tables_dump_rules, nf_tables_dump_sets); it does not filter the dump of chains.
func (r *reader) dump(get, answer uint16, op string, visit func(attrs) error) error {
	r.batch.reset()
	r.batch.begin(get, unix.NLM_F_DUMP, message{op: op, object: TableName})
	r.batch.string(ofTable, TableName)
	r.batch.end()
	return r.ask(r.transport, answer, visit)
}

// ask sends the questions in the buffer and calls visit with the attributes of each answer of the given type. A dump must
// be the only question. ask ignores NLM_F_DUMP_INTR, which the kernel also sets for changes of other tables: they do not
// disturb a dump of this table. Callers that need a consistent answer compare the generation before and after.
func (x *exchange) ask(t *transport, answer uint16, visit func(attrs) error) error {
	r := replies{batch: &x.batch}
	err := x.exchange(t, func(b []byte) (last bool, err error) {
		err = eachMessage(b, func(m netlinkMessage) error {
			isLast := m.seq == x.batch.seq
			switch {
			case m.seq == 0 || m.seq > x.batch.seq:
				return nil // the answer to an earlier question
			case m.typ == unix.NLMSG_ERROR:
				last = isLast
				return r.errorMessage(m)
			case m.typ == unix.NLMSG_DONE:
				last = isLast
				return r.done(m)
			case m.typ != nftMessage|answer:
				return nil
			}
			last = isLast && m.flags&unix.NLM_F_MULTI == 0
			a, err := parseAttrs(m.body[min(len(m.body), nfgenmsgLen):])
			if err != nil {
				return err
			}
			return visit(a)
		})
		return last, err
	})
	if err != nil {
		return err
	}
	return errors.Join(r.refused...)
}

// attrs is a list of attributes by type.
type attrs map[uint16][]byte

func parseAttrs(b []byte) (attrs, error) {
	a := attrs{}
	err := eachAttr(b, func(typ uint16, value []byte) { a[typ] = value })
	return a, err
}

func (a attrs) string(typ uint16) string { return strings.TrimRight(string(a[typ]), "\x00") }

// uint32 is 0 for an attribute that is not there or too short.
func (a attrs) uint32(typ uint16) uint32 {
	if len(a[typ]) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a[typ])
}

func (a attrs) uint64(typ uint16) uint64 {
	if len(a[typ]) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(a[typ])
}

// tlv is the text of one entry of userdata as nft writes it: a byte each of type and length, then the value.
func tlv(udata []byte, typ userdata.Type) string {
	for len(udata) >= 2 && len(udata) >= 2+int(udata[1]) {
		value := udata[2 : 2+int(udata[1])]
		if userdata.Type(udata[0]) == typ {
			return strings.TrimRight(string(value), "\x00")
		}
		udata = udata[2+len(value):]
	}
	return ""
}
