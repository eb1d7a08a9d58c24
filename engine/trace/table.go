package trace

import (
	"encoding/binary"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// TableName is the name of the tables that mark packets. They exist while packets are traced: a table of family inet, and a
// table of family bridge where the agent has such a table.
const TableName = "multi_networkpolicy_trace"

// markChain is the chain of the rule that marks packets. All other rules lead there, so the limit holds for all packets
// together.
const markChain = "traced"

// priorities place the base chains after the reassembly of fragments, so that their rules can read ports, and before all other
// rules of the agent. In a bridge, connection tracking reassembles (-200).
var priorities = [...]int32{engine.Inet: -350, engine.Bridge: -190}

// hook is a netfilter hook where packets are marked.
type hook struct {
	chain  string
	number uint32                           // enum nf_inet_hooks (linux/netfilter.h)
	onLink func(name string) expr.Statement // matches the interface that is known at the hook
}

// hooks are the earliest hooks for packets that come in and for packets that the pod sends.
var hooks = []hook{
	{"prerouting", 0, expr.IIFName},
	{"output", 3, expr.OIFName},
}

// markTable describes the table that marks packets. As nft prints it:
//
//	table inet multi_networkpolicy_trace {
//		chain traced { limit rate 100/second burst 100 packets meta nftrace set 1 }
//		chain prerouting { type filter hook prerouting priority -350; iifname "net1" tcp dport 80 goto traced }
//		chain output { type filter hook output priority -350; oifname "net1" tcp dport 80 goto traced }
//	}
type markTable struct {
	family expr.TableFamily
	filter Filter
	flags  uint32 // owner, or 0 where the kernel knows no owner
	// end bounds a table without an owner, which outlives a killed process. After this time it marks no packets; zero:
	// no end.
	end time.Time
}

// encode writes the batch that creates the table. The batch fails if the table exists.
func (t markTable) encode(m *nfnl.Messages) error {
	// Any generation: the batch touches a table that nobody else changes, and a pod whose tables change all the time
	// must be traceable too.
	m.Reset()
	m.BeginBatch(nfnl.AnyGeneration)
	begin(m, t.family, unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, nfnl.Label{Op: "NEWTABLE", Object: TableName})
	m.Text(unix.NFTA_TABLE_NAME, TableName)
	m.Uint32(unix.NFTA_TABLE_FLAGS, t.flags)
	m.End()
	addChain(m, t.family, markChain, nil)
	mark, err := t.mark()
	if err != nil {
		return err
	}
	addRule(m, t.family, markChain, mark)
	for _, h := range t.hooks() {
		addChain(m, t.family, h.chain, &h)
		// A hook knows a single interface, and a filter may need a rule for each transport, so a table has up to hooks
		// × filters × transports rules. Each of them leads to the same limit.
		for _, filter := range t.filters() {
			for _, matches := range filter.rules(h.onLink) {
				payload, err := expr.Marshal(t.family, append(matches, expr.Goto(markChain)))
				if err != nil {
					return err
				}
				addRule(m, t.family, h.chain, payload)
			}
		}
	}
	m.EndBatch()
	return nil
}

// hooks returns the hooks of the table. A frame that leaves a bridge through an interface has come in through another
// port, so prerouting cannot match the interface. The hook forward knows the outgoing port.
func (t markTable) hooks() []hook {
	if t.family == engine.Inet || t.filter.Interface == "" {
		return hooks
	}
	return append(slices.Clip(hooks), hook{"forward", 2, expr.OIFName})
}

// filters returns the filter, and in a bridge also the filter with the name that the interface has as a port of the
// bridge (engine.BridgePort).
func (t markTable) filters() []Filter {
	if t.family == engine.Inet || t.filter.Interface == "" {
		return []Filter{t.filter}
	}
	port := t.filter
	port.Interface = engine.BridgePort(port.Interface)
	return []Filter{t.filter, port}
}

// encodeRemoval writes the batch that deletes the table of a family.
func encodeRemoval(m *nfnl.Messages, f expr.TableFamily) {
	m.Reset()
	m.BeginBatch(nfnl.AnyGeneration)
	begin(m, f, unix.NFT_MSG_DELTABLE, 0, nfnl.Label{Op: "DELTABLE", Object: TableName})
	m.Text(unix.NFTA_TABLE_NAME, TableName)
	m.End()
	m.EndBatch()
}

// begin opens a message of nf_tables for a family of tables. The type is an NFT_MSG_ number.
func begin(m *nfnl.Messages, f expr.TableFamily, typ, flags uint16, l nfnl.Label) {
	m.BeginNFT(typ, flags, f.Number(), l)
}

// addChain writes a new chain. With a hook it is a base chain, whose policy accepts.
func addChain(m *nfnl.Messages, f expr.TableFamily, name string, h *hook) {
	begin(m, f, unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_EXCL, nfnl.Label{Op: "NEWCHAIN", Object: name})
	m.Text(unix.NFTA_CHAIN_TABLE, TableName)
	m.Text(unix.NFTA_CHAIN_NAME, name)
	if h != nil {
		nest := m.Nest(unix.NFTA_CHAIN_HOOK)
		m.Uint32(unix.NFTA_HOOK_HOOKNUM, h.number)
		m.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(priorities[f]))
		m.EndNest(nest)
		m.Uint32(unix.NFTA_CHAIN_POLICY, nfAccept)
		m.Text(unix.NFTA_CHAIN_TYPE, "filter")
	}
	m.End()
}

// addRule writes a new rule at the end of a chain. The payload is its list of expressions.
func addRule(m *nfnl.Messages, f expr.TableFamily, chain string, payload []byte) {
	begin(m, f, unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, nfnl.Label{Op: "NEWRULE", Object: chain})
	m.Text(unix.NFTA_RULE_TABLE, TableName)
	m.Text(unix.NFTA_RULE_CHAIN, chain)
	// The payload is a list of NFTA_LIST_ELEM attributes, so its attribute is a nest.
	m.Data(unix.NLA_F_NESTED|unix.NFTA_RULE_EXPRESSIONS, payload)
	m.End()
}

// metaTime is NFT_META_TIME_NS, which x/sys lacks: nanoseconds since 1970.
const metaTime = 30

// cmpLess is NFT_CMP_LT.
const cmpLess = 2

// mark returns the expressions of the rule that marks packets: `limit rate N/second burst N packets meta nftrace set 1`, after
// `meta time < END` if the table has an end.
func (t markTable) mark() ([]byte, error) {
	var b nfnl.Buffer
	const reg = unix.NFT_REG_1
	if !t.end.IsZero() {
		// The kernel's clock is in host byte order; cmp compares bytes, so that the order must be the network's.
		expression(&b, "meta", func() {
			b.Uint32(unix.NFTA_META_KEY, metaTime)
			b.Uint32(unix.NFTA_META_DREG, reg)
		})
		expression(&b, "byteorder", func() {
			b.Uint32(unix.NFTA_BYTEORDER_SREG, reg)
			b.Uint32(unix.NFTA_BYTEORDER_DREG, reg)
			b.Uint32(unix.NFTA_BYTEORDER_OP, unix.NFT_BYTEORDER_HTON)
			b.Uint32(unix.NFTA_BYTEORDER_LEN, 8)
			b.Uint32(unix.NFTA_BYTEORDER_SIZE, 8)
		})
		expression(&b, "cmp", func() {
			b.Uint32(unix.NFTA_CMP_SREG, reg)
			b.Uint32(unix.NFTA_CMP_OP, cmpLess)
			data(&b, unix.NFTA_CMP_DATA, binary.BigEndian.AppendUint64(nil, uint64(t.end.UnixNano())))
		})
	}
	unit, _ := expr.LimitUnitByName("second")
	limit, err := expr.Marshal(expr.Inet, []expr.Statement{expr.Limit{Rate: t.filter.Rate, Unit: unit, Burst: t.filter.Rate}.Statement()})
	if err != nil {
		return nil, err
	}
	b.Raw(limit)
	// The register must hold 1: `meta set` copies it into the trace bit of the packet.
	expression(&b, "immediate", func() {
		b.Uint32(unix.NFTA_IMMEDIATE_DREG, reg)
		data(&b, unix.NFTA_IMMEDIATE_DATA, []byte{1})
	})
	expression(&b, "meta", func() {
		b.Uint32(unix.NFTA_META_KEY, unix.NFT_META_NFTRACE)
		b.Uint32(unix.NFTA_META_SREG, reg)
	})
	return b.Bytes(), nil
}

// expression writes an expression of a rule: an NFTA_LIST_ELEM with a name and attributes.
func expression(b *nfnl.Buffer, name string, attributes func()) {
	element := b.Nest(unix.NFTA_LIST_ELEM)
	b.Text(unix.NFTA_EXPR_NAME, name)
	nest := b.Nest(unix.NFTA_EXPR_DATA)
	attributes()
	b.EndNest(nest)
	b.EndNest(element)
}

// data writes a value as a nest with NFTA_DATA_VALUE.
func data(b *nfnl.Buffer, typ uint16, value []byte) {
	nest := b.Nest(typ)
	b.Data(unix.NFTA_DATA_VALUE, value)
	b.EndNest(nest)
}
