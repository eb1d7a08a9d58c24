package engine

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// TraceTableName is the table, in family inet, that is there while packets are traced.
const TraceTableName = "multi_networkpolicy_trace"

// traceChain has the one rule that marks packets. All filters lead there, so that the limit is one for all of them.
const traceChain = "traced"

// tracePriority is behind the kernel's own reassembly of fragments (-400), so that ports can be read, and before all
// else that has rules.
const tracePriority = -350

// traceHooks are where packets are marked: as early as possible on their way in and out.
var traceHooks = []struct {
	chain  string
	number uint32 // enum nf_inet_hooks (linux/netfilter.h)
	onLink func(name string) expr.Statement
}{
	{"prerouting", 0, expr.IIFName},
	{"output", 3, expr.OIFName},
}

// traceTable is what marks packets.
type traceTable struct {
	filter TraceFilter
	flags  uint32
	end    time.Time // marks none after it, unless zero
}

func (b *batch) encodeTrace(t traceTable) error {
	b.reset()
	b.control(unix.NFNL_MSG_BATCH_BEGIN, batchBegin)
	b.end()
	b.begin(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, message{op: "NEWTABLE", object: TraceTableName})
	b.string(unix.NFTA_TABLE_NAME, TraceTableName)
	b.uint32(unix.NFTA_TABLE_FLAGS, t.flags)
	b.end()
	b.traceChain(traceChain)
	b.end()
	mark, err := t.mark()
	if err != nil {
		return err
	}
	b.traceRule(traceChain, mark)
	for _, h := range traceHooks {
		b.traceChain(h.chain)
		hook := b.nest(unix.NFTA_CHAIN_HOOK)
		b.uint32(unix.NFTA_HOOK_HOOKNUM, h.number)
		priority := int32(tracePriority)
		b.uint32(unix.NFTA_HOOK_PRIORITY, uint32(priority))
		b.endNest(hook)
		b.uint32(unix.NFTA_CHAIN_POLICY, policyAccept)
		b.string(unix.NFTA_CHAIN_TYPE, chainType)
		b.end()
		for _, matches := range t.filter.rules(h.onLink) {
			payload, err := expr.Marshal(append(matches, expr.Goto(traceChain)))
			if err != nil {
				return err
			}
			b.traceRule(h.chain, payload)
		}
	}
	b.endBatch()
	return nil
}

func (b *batch) encodeTraceRemoval() {
	b.reset()
	b.control(unix.NFNL_MSG_BATCH_BEGIN, batchBegin)
	b.end()
	b.begin(unix.NFT_MSG_DELTABLE, 0, message{op: "DELTABLE", object: TraceTableName})
	b.string(unix.NFTA_TABLE_NAME, TraceTableName)
	b.end()
	b.endBatch()
}

func (b *batch) endBatch() {
	b.orFlags(unix.NLM_F_ACK)
	b.control(unix.NFNL_MSG_BATCH_END, "BATCH_END")
	b.end()
}

func (b *batch) traceChain(name string) {
	b.begin(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_EXCL, message{op: "NEWCHAIN", object: name})
	b.string(unix.NFTA_CHAIN_TABLE, TraceTableName)
	b.string(unix.NFTA_CHAIN_NAME, name)
}

func (b *batch) traceRule(chain string, payload []byte) {
	b.begin(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, message{op: "NEWRULE", object: chain})
	b.string(unix.NFTA_RULE_TABLE, TraceTableName)
	b.string(unix.NFTA_RULE_CHAIN, chain)
	b.bytes(unix.NLA_F_NESTED|unix.NFTA_RULE_EXPRESSIONS, payload)
	b.end()
}

// metaTime is NFT_META_TIME_NS, which x/sys lacks: nanoseconds since 1970.
const metaTime = 30

// cmpLess is NFT_CMP_LT.
const cmpLess = 2

// mark is `meta time < END limit rate N/second burst N packets meta nftrace set 1`.
func (t traceTable) mark() ([]byte, error) {
	var w wire
	const reg = unix.NFT_REG_1
	if !t.end.IsZero() {
		w.expression("meta", func() {
			w.uint32(unix.NFTA_META_KEY, metaTime)
			w.uint32(unix.NFTA_META_DREG, reg)
		})
		w.expression("byteorder", func() {
			w.uint32(unix.NFTA_BYTEORDER_SREG, reg)
			w.uint32(unix.NFTA_BYTEORDER_DREG, reg)
			w.uint32(unix.NFTA_BYTEORDER_OP, unix.NFT_BYTEORDER_HTON)
			w.uint32(unix.NFTA_BYTEORDER_LEN, 8)
			w.uint32(unix.NFTA_BYTEORDER_SIZE, 8)
		})
		w.expression("cmp", func() {
			w.uint32(unix.NFTA_CMP_SREG, reg)
			w.uint32(unix.NFTA_CMP_OP, cmpLess)
			w.data(unix.NFTA_CMP_DATA, binary.BigEndian.AppendUint64(nil, uint64(t.end.UnixNano())))
		})
	}
	unit, _ := expr.LimitUnitByName("second")
	limit, err := expr.Marshal([]expr.Statement{expr.Limit{Rate: t.filter.Rate, Unit: unit, Burst: t.filter.Rate}.Statement()})
	if err != nil {
		return nil, err
	}
	w.buf = append(w.buf, limit...)
	w.expression("immediate", func() {
		w.uint32(unix.NFTA_IMMEDIATE_DREG, reg)
		w.data(unix.NFTA_IMMEDIATE_DATA, []byte{1})
	})
	w.expression("meta", func() {
		w.uint32(unix.NFTA_META_KEY, unix.NFT_META_NFTRACE)
		w.uint32(unix.NFTA_META_SREG, reg)
	})
	return w.buf, nil
}

// expression writes one NFTA_LIST_ELEM of a rule.
func (w *wire) expression(name string, attributes func()) {
	element := w.nest(unix.NFTA_LIST_ELEM)
	w.string(unix.NFTA_EXPR_NAME, name)
	data := w.nest(unix.NFTA_EXPR_DATA)
	attributes()
	w.endNest(data)
	w.endNest(element)
}

// data writes a value of an expression.
func (w *wire) data(typ uint16, value []byte) {
	at := w.nest(typ)
	w.bytes(unix.NFTA_DATA_VALUE, value)
	w.endNest(at)
}
